//! landbridge in this process: one for each test program, because it logs for all of it.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    time::Duration,
};

use clap::Parser;
use xds_load::{mesh::Mesh, report::Report};

fn landbridge(arguments: &[&str]) {
    let arguments = std::iter::once("landbridge").chain(arguments.iter().copied());
    landbridge::args::Args::try_parse_from(arguments).unwrap().run().unwrap();
}

/// A server of the mesh in `dir/mesh` that ends with the process; returns its plaintext port.
pub fn serve(dir: &Path, mesh: &Mesh) -> SocketAddr {
    let root = dir.join("root");
    let ca = dir.join("ca");
    let [root, ca] = [&root, &ca].map(|path| path.to_str().unwrap().to_owned());
    landbridge(&["ca", "root", "--out", &root]);
    landbridge(&["ca", "intermediate", "--root", &root, "--cluster", "cluster-0", "--out", &ca]);
    let sockets = [(); 5].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let ports = sockets.map(|socket| socket.local_addr().unwrap());
    let [grpc, secure, http, monitoring, https] = ports.map(|port| port.to_string());
    let state = dir.join("state").to_str().unwrap().to_owned();
    let files: Vec<_> =
        mesh.directories(&dir.join("mesh")).map(|(name, dir)| format!("{name}={}", dir.display())).collect();
    std::thread::spawn(move || {
        let mut arguments =
            vec!["serve", "--cluster-id", "cluster-0", "--ca-dir", &ca, "--state-dir", &state];
        arguments.extend(["--grpc-addr", &grpc, "--secure-grpc-addr", &secure]);
        arguments.extend(["--http-addr", &http, "--monitoring-addr", &monitoring, "--https-addr", &https]);
        files.iter().for_each(|files| arguments.extend(["--files", files]));
        landbridge(&arguments);
    });
    for _ in 0..200 {
        if TcpStream::connect(ports[0]).is_ok() {
            return ports[0];
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("no server within 10 s");
}

/// A figure that the run must have measured.
pub fn metric(report: &Report, name: &str) -> f64 {
    report.get(name).unwrap_or_else(|| panic!("no metric {name}")).value
}
