//! The server itself: bounded in everything, and it ends when it is told to.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use publish::{Answer, Limits, Method, Request, Server, Site};
use testkit::http;
use testkit::process::PATIENCE;

struct Echo;

impl Site for Echo {
    fn answer(&self, request: &Request) -> Answer {
        match (request.method, request.path.as_str()) {
            (Method::Get, "/large") => Answer::new(200, "application/octet-stream", vec![7; 24 << 20]),
            (Method::Get, "/panic") => panic!("on purpose"),
            (Method::Get, path) => Answer::text(200, path),
            (Method::Post, _) => Answer::new(200, "application/octet-stream", request.body.clone()),
        }
    }
}

fn serve(limits: Limits) -> (Server, String) {
    let server = Server::start("test-http", &["127.0.0.1:0".parse().unwrap()], Arc::new(Echo), limits).unwrap();
    let host = server.addresses()[0].to_string();
    (server, host)
}

fn connect(host: &str) -> TcpStream {
    let stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn bodies_and_heads_are_bounded() {
    let (server, host) = serve(Limits { body_bytes_max: 1000, ..Limits::default() });
    let url = format!("http://{host}/");
    assert_eq!(http::request("POST", &url, "", &[b'x'; 1000]).unwrap().body.len(), 1000);
    assert_eq!(http::request("POST", &url, "", &[b'x'; 1001]).unwrap().status, 413);
    // One that does not say how long it is.
    let chunked = format!(
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n5dc\r\n{}\r\n0\r\n\r\n",
        "x".repeat(1500)
    );
    assert_eq!(http::raw(&host, chunked.as_bytes()).unwrap().status, 413);
    let many: String = (0..100).map(|n| format!("x-{n}: y\r\n")).collect();
    assert_eq!(http::request("GET", &url, &many, b"").unwrap().status, 431);
    assert_eq!(http::get(&format!("{url}large")).body.len(), 24 << 20);
    // A site that panics answers 500 and serves the next one.
    assert_eq!(http::get(&format!("{url}panic")).status, 500);
    assert_eq!(http::get(&url).status, 200);
    server.stop();
}

/// Whoever is silent, or slow, is left; others come in meanwhile as far as there is room.
#[test]
fn silent_clients_are_left() {
    let limits = Limits { connections_max: 2, request_max: Duration::from_millis(300), ..Limits::default() };
    let (server, host) = serve(Limits { body_bytes_max: 100, ..limits });
    let mut silent: Vec<TcpStream> = (0..2).map(|_| connect(&host)).collect();
    silent[1].write_all(b"GET / HTTP/1.1\r\nhost").unwrap();
    // There is no room until they are left.
    assert_eq!(http::get(&format!("http://{host}/")).status, 200);
    for stream in &mut silent {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    }
    // A body that does not come.
    let mut stream = connect(&host);
    stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\nabc").unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
    server.stop();
}

#[test]
fn an_old_connection_and_a_stopped_server_end() {
    let (server, host) = serve(Limits { connection_max: Duration::from_millis(200), ..Limits::default() });
    let mut kept = connect(&host);
    kept.write_all(b"GET /kept HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    kept.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("/kept"), "answered, and then closed: {answer}");
    server.stop();
    let (server, host) = serve(Limits::default());
    let mut idle = connect(&host);
    idle.write_all(b"GET /idle HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).unwrap();
    server.stop();
    let mut rest = String::new();
    idle.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("/idle"));
    assert!(TcpStream::connect(&host).is_err(), "nobody listens any more");
}
