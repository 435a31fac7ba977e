//! x
mod agents; mod place; mod postgres;
fn main() {
 let place = place::Place::open().unwrap();
 let t = std::time::Instant::now();
 let s = postgres::Server::start(&place, "secret", &mut |x| eprintln!("{x}")).unwrap();
 eprintln!("{} {} {:?}", s.version, s.port, t.elapsed());
 if std::env::args().nth(1).is_some() { std::process::exit(1); }
 s.stop();
 eprintln!("{:?}", t.elapsed());
}
