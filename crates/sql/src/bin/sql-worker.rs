//! The analysing process by itself, for tests and measurements. The product's own binary is its own worker.

fn main() -> std::io::Result<()> {
    sql::serve_worker()
}
