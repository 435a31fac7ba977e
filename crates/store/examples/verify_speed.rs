//! Verifies a data directory over and over, for a profiler: `verify_speed DIR ROUNDS`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, missing_docs)]
fn main() {
    let mut args = std::env::args().skip(1);
    let dir = args.next().unwrap();
    let rounds: u32 = args.next().unwrap().parse().unwrap();
    for _ in 0..rounds {
        let began = std::time::Instant::now();
        let report = store::verify(std::path::Path::new(&dir), None, &mut |_| {}).unwrap();
        let seconds = began.elapsed().as_secs_f64();
        println!("{} entries, {:.0}/s", report.integrity.entries, report.integrity.entries as f64 / seconds);
    }
}
