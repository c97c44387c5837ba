// A kube-apiserver with an etcd in the same process.
//
//	kube-apiserver ETCD_DIR PARENT FLAGS...
//
// FLAGS are those of kube-apiserver; --etcd-servers is ours. It ends with the process of id PARENT, however that ends;
// with 0 it lives on by itself. Data is not synced to disk: it survives this process, but not the machine.
package main

import (
	"fmt"
	"net/url"
	"os"
	"strconv"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	if len(os.Args) < 3 {
		fail("usage: kube-apiserver ETCD_DIR PARENT FLAGS...", nil)
	}
	parent, err := strconv.Atoi(os.Args[2])
	if err != nil {
		fail("PARENT is a process id or 0", err)
	}
	if parent != 0 {
		go endWith(parent)
	}
	etcd := startEtcd(os.Args[1])
	os.Args = append([]string{os.Args[0], "--etcd-servers=" + etcd}, os.Args[3:]...)
	os.Exit(cli.Run(app.NewAPIServerCommand()))
}

// startEtcd returns the address that it serves clients on.
func startEtcd(dir string) string {
	anyPort := []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	config := embed.NewConfig()
	config.Dir = dir
	config.UnsafeNoFsync = true
	config.LogLevel = "error"
	config.ListenClientUrls, config.AdvertiseClientUrls = anyPort, anyPort
	config.ListenPeerUrls, config.AdvertisePeerUrls = anyPort, anyPort
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
	return "http://" + etcd.Clients[0].Addr().String()
}

func endWith(parent int) {
	for os.Getppid() == parent {
		time.Sleep(time.Second)
	}
	os.Exit(1)
}

func fail(what string, err error) {
	fmt.Fprintln(os.Stderr, "kube-apiserver:", what, err)
	os.Exit(1)
}
