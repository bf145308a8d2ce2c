//! The kernel's log of dropped packets: its lines, and the switch.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use crate::blocked::{closed_host, entries, expected, listed, send_each_kind};
use crate::packets::*;
use crate::*;
use lab::*;

/// More packets than lines in the time of the test.
const DATAGRAMS: usize = 60;
const PREFIX: &str = "trailblazer drops (closed): ";

/// The table of the host.
fn table(lab: &Lab) -> String {
    let words = ["nft", "list", "table", "inet", "trailblazer"];
    lab.ns("host1").run(&words)
}

#[test]
fn switched_off_log_leaves_counts_and_list() {
    isolated(|| {
        let lab = lab_with_nat();
        let mut machine = closed_host(&lab);
        assert!(table(&lab).contains(PREFIX), "{}", table(&lab));
        machine.configure(&format!("{BOTH}[kernel]\nlog_drops = false\n"));
        machine.changed();
        machine.in_sync();
        assert!(!table(&lab).contains("log prefix"), "{}", table(&lab));
        shell(&lab, DELETE_RULES);
        count_from_now(&lab);
        send_each_kind(&lab);
        assert_no_leaks(&lab);
        let list = listed(&machine);
        assert_eq!(entries(&list), expected(1), "{list:#}");
        machine.configure(BOTH);
        machine.changed();
        assert!(table(&lab).contains(PREFIX), "{}", table(&lab));
    });
}

/// The reason against a line of a namespace in the kernel's log.
fn no_log() -> Option<String> {
    const ALL: &str = "/proc/sys/net/netfilter/nf_log_all_netns";
    let value = std::fs::read_to_string(ALL).unwrap_or_default();
    (value.trim() != "1").then(|| format!("{ALL} is not 1"))
}

/// The lines of the kernel's log with our prefix since the last call.
fn lines(log: &mut std::fs::File) -> Vec<String> {
    let mut found = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        match log.read(&mut buffer) {
            Ok(length) => found.push(String::from_utf8_lossy(&buffer[..length]).into_owned()),
            // Other programs have overwritten records.
            Err(error) if error.raw_os_error() == Some(32) => {}
            Err(_) => break,
        }
    }
    found.retain(|line| line.contains(PREFIX));
    found
}

#[test]
fn kernel_log_names_addresses_ports_and_user_at_a_bounded_rate() {
    if !inside()
        && let Some(reason) = no_log()
    {
        println!("not run: a namespace writes no line to the kernel's log: {reason}");
        return;
    }
    // A user of a namespace may not read the kernel's log.
    Isolation::default().as_root().run(|| {
        let lab = lab_with_nat();
        let _machine = closed_host(&lab);
        let mut log = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open("/dev/kmsg")
            .unwrap();
        drop(lines(&mut log));
        let started = std::time::Instant::now();
        let ports: Vec<u16> = lab.ns("host1").in_thread(|| {
            let send = |_| {
                let socket = bound(PARTNER, Type::DGRAM).unwrap();
                assert!(socket.send_to(b"who", &at(PARTNER)).is_err());
                socket.local_addr().unwrap().as_socket().unwrap().port()
            };
            (0..DATAGRAMS).map(send).collect()
        });
        let took = started.elapsed().as_secs_f64();
        let lines = lines(&mut log);
        println!(
            "{} lines in {took} s, the first: {:?}",
            lines.len(),
            lines.first()
        );
        let most = 5.0 * took + 6.0;
        assert!((4..=most as usize).contains(&lines.len()), "{lines:?}");
        for line in &lines {
            for word in [
                format!("OUT={PRIVATE_LINK} "),
                format!("SRC={HOST1} DST={PARTNER} "),
                "PROTO=UDP ".to_owned(),
                format!("DPT={PORT} "),
                "UID=0 ".to_owned(),
            ] {
                assert!(line.contains(&word), "{word}: {line}");
            }
            let sent = |port: &&u16| line.contains(&format!("SPT={port} "));
            assert!(ports.iter().any(|port| sent(&port)), "{ports:?}: {line}");
        }
    });
}
