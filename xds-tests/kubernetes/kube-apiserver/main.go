// A kube-apiserver with an etcd in the same process.
//
//	kube-apiserver ETCD_DIR PARENT FLAGS...
//
// FLAGS are those of kube-apiserver; --etcd-servers is ours. It ends with the process of id PARENT, however that ends;
// with 0 it lives on by itself. SIGUSR1 takes etcd away, SIGUSR2 gives it back with its data.
// Data is not synced to disk: it survives this process, but not the machine.
package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	if len(os.Args) < 3 {
		fail("arguments", errors.New("ETCD_DIR PARENT FLAGS..."))
	}
	dir := os.Args[1]
	parent, err := strconv.Atoi(os.Args[2])
	if err != nil {
		fail("PARENT, a process id or 0", err)
	}
	if parent != 0 {
		go endWith(parent)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	etcd := startEtcd(dir, "127.0.0.1:0")
	address := etcd.Clients[0].Addr().String()
	go takeAndGive(etcd, signals, dir, address)

	os.Args = append([]string{os.Args[0], "--etcd-servers=http://" + address}, os.Args[3:]...)
	os.Exit(cli.Run(app.NewAPIServerCommand()))
}

// startEtcd serves clients on address and comes back when it does.
func startEtcd(dir, address string) *embed.Etcd {
	clients, peers := []url.URL{{Scheme: "http", Host: address}}, []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	config := embed.NewConfig()
	config.Dir = dir
	config.UnsafeNoFsync = true
	config.LogLevel = "error"
	config.ListenClientUrls, config.AdvertiseClientUrls = clients, clients
	config.ListenPeerUrls, config.AdvertisePeerUrls = peers, peers
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		fail("start etcd in "+dir, err)
	}
	select {
	case <-etcd.Server.ReadyNotify():
	case err := <-etcd.Err():
		fail("run etcd in "+dir, err)
	}
	return etcd
}

func takeAndGive(etcd *embed.Etcd, signals <-chan os.Signal, dir, address string) {
	for signal := range signals {
		if signal == syscall.SIGUSR1 && etcd != nil {
			etcd.Close()
			etcd = nil
		} else if signal == syscall.SIGUSR2 && etcd == nil {
			etcd = startEtcd(dir, address)
		}
	}
}

func endWith(parent int) {
	for os.Getppid() == parent {
		time.Sleep(time.Second)
	}
	os.Exit(1)
}

func fail(what string, err error) {
	fmt.Fprintf(os.Stderr, "kube-apiserver: %s: %v\n", what, err)
	os.Exit(1)
}
