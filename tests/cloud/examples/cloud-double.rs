//! Serves a small account on the loopback address until the process is killed.
//!
//! `cargo run -p trailblazer-cloud --example cloud-double` prints the URL, then the ids. The AWS
//! CLI finds the double with `--endpoint-url URL`, and any keys.

use std::io;

use cloud::{Serve, sample, serve};

fn main() -> io::Result<()> {
    let server = serve(&sample::account(), Serve::default())?;
    println!("{}", server.url());
    println!("VPC {}", sample::VPC);
    println!("route table {}", sample::TABLE);
    println!("targets {} {} {}", sample::IGW, sample::EIGW, sample::NAT);
    server.wait();
    Ok(())
}
