//! A state dir that refuses the record of withdrawn prefixes: additions go in, withdrawals wait, and the
//! pass says so. In both modes, for single passes and for the passes of an agent.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cloud::{Cloud, Fault, Way, Wrong};
use ipnet::IpNet;
use trailblazer::degraded::Part;
use trailblazer::reconcile::{Asking, Outcome};
use trailblazer::types::SyncToken;
use trailblazer::vpc::pass::PassMemory;
use trailblazer::vpc::report::VpcReport;

use crate::world::*;

const TOKEN: u64 = 1_700_000_000;
const MODES: [&str; 2] = ["", "mode = \"routes\"\n"];
const BOTH: [&str; 2] = ["52.216.0.0/15", "54.231.0.0/16"];
const KEPT: &str = "52.216.0.0/15";
const GONE: &str = "54.231.0.0/16";
const NEW: &str = "3.5.0.0/19";

#[derive(Debug, Clone, Copy)]
enum Disk {
    Full,
    ReadOnly,
}

fn mount(words: &[&str]) {
    let status = Command::new("mount").args(words).status().unwrap();
    assert!(status.success(), "mount {words:?}");
}

impl Disk {
    /// The words of the system for the fault.
    fn says(self) -> &'static str {
        match self {
            Disk::Full => "No space left on device",
            Disk::ReadOnly => "Read-only file system",
        }
    }

    fn refuse(self, writer: &Writer) {
        let state = state_dir(writer);
        match self {
            Disk::Full => {
                let mut file = std::fs::File::create(state.join("filler")).unwrap();
                while file.write_all(&[0; 512]).is_ok() {}
            }
            Disk::ReadOnly => mount(&["-o", "remount,ro", state.to_str().unwrap()]),
        }
    }

    fn recover(self, writer: &Writer) {
        let state = state_dir(writer);
        match self {
            Disk::Full => std::fs::remove_file(state.join("filler")).unwrap(),
            Disk::ReadOnly => mount(&["-o", "remount,rw", state.to_str().unwrap()]),
        }
    }
}

fn state_dir(writer: &Writer) -> PathBuf {
    writer.directory.path().join("state")
}

/// A writer whose state dir is a disk of 64 KiB, with its first document in force.
fn on_small_disk(cloud: &Cloud, mode: &str) -> Writer {
    let mut writer = Writer::new(cloud, mode);
    let state = state_dir(&writer);
    std::fs::create_dir(&state).unwrap();
    let state = state.to_str().unwrap();
    mount(&["-t", "tmpfs", "-o", "size=64k", "tmpfs", state]);
    writer.publish(&document(TOKEN, &BOTH));
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    writer
}

/// The prefixes that lead to the internet gateway.
fn led(cloud: &Cloud) -> BTreeSet<String> {
    let routes = cloud.routes(TABLE).into_iter();
    let to_target = routes.filter(|(_, target)| target == IGW);
    to_target
        .flat_map(|(to, _)| match to.parse::<IpNet>() {
            Ok(prefix) => BTreeSet::from([prefix]),
            Err(_) => cloud.prefixes(&to),
        })
        .map(|prefix| prefix.to_string())
        .collect()
}

fn set(prefixes: &[&str]) -> BTreeSet<String> {
    prefixes.iter().map(|it| (*it).to_owned()).collect()
}

/// The pass has named the fault, with the exit code of the other roles.
#[track_caller]
fn assert_refused(report: &VpcReport, says: &str) {
    assert_eq!(report.exit_code(), 1, "{report:?}");
    assert_named(report, says);
}

#[track_caller]
fn assert_named(report: &VpcReport, says: &str) {
    assert_eq!(report.error, None, "{report:?}");
    let mut faults = report.degraded.iter();
    let named = faults.find(|it| it.part == Part::State && it.reason.contains(says));
    let named = named.unwrap_or_else(|| panic!("no {says:?}: {:#?}", report.degraded));
    let waits = named.advice.contains("only withdrawals of prefixes wait");
    assert!(waits, "{named:?}");
}

/// The memory that an agent has, and a single pass has not.
fn end_process(writer: &mut Writer) {
    let waits = writer.memory.waits;
    writer.memory = PassMemory::default();
    writer.memory.waits = waits;
}

fn additions_go_in_and_withdrawals_wait(disk: Disk, is_agent: bool) {
    for mode in MODES {
        let cloud = vpc();
        let mut writer = on_small_disk(&cloud, mode);
        // Somebody else's, to the same target.
        cloud.set_route(TABLE, "203.0.113.0/24", IGW);
        disk.refuse(&writer);
        writer.publish(&document(TOKEN + 60, &[KEPT, NEW]));
        let report = run(writer.pass());
        assert_refused(&report, disk.says());
        let all = set(&[KEPT, GONE, NEW, "203.0.113.0/24"]);
        assert_eq!(led(&cloud), all, "{mode} {report:?}");
        // Later passes find nothing to do, and say the same.
        let writes = cloud.writes();
        for asking in [Asking::Nobody, Asking::Source] {
            if is_agent {
                writer.options.asking = asking;
            } else {
                end_process(&mut writer);
            }
            let report = run(writer.pass());
            assert_refused(&report, disk.says());
            assert_eq!((led(&cloud), cloud.writes()), (all.clone(), writes));
        }
        disk.recover(&writer);
        if !is_agent {
            end_process(&mut writer);
        }
        let report = run(writer.pass());
        assert_eq!(report.outcome, Outcome::Changed, "{mode} {report:?}");
        assert_eq!((report.exit_code(), &report.degraded), (0, &Vec::new()));
        assert_eq!(led(&cloud), set(&[KEPT, NEW, "203.0.113.0/24"]), "{mode}");
        // The addition of the time without a disk is ours, and can be withdrawn.
        end_process(&mut writer);
        writer.publish(&document(TOKEN + 120, &[KEPT]));
        let report = run(writer.pass());
        assert_eq!(report.exit_code(), 0, "{mode} {report:?}");
        assert_eq!(led(&cloud), set(&[KEPT, "203.0.113.0/24"]), "{mode}");
        assert_eq!(cloud.violations(), Vec::<String>::new());
    }
}

#[test]
fn full_disk_lets_additions_in_and_withdrawals_wait() {
    lab::isolated(|| additions_go_in_and_withdrawals_wait(Disk::Full, false));
}

#[test]
fn full_disk_under_an_agent_lets_additions_in_and_withdrawals_wait() {
    lab::isolated(|| additions_go_in_and_withdrawals_wait(Disk::Full, true));
}

#[test]
fn read_only_disk_lets_additions_in_and_withdrawals_wait() {
    lab::isolated(|| additions_go_in_and_withdrawals_wait(Disk::ReadOnly, false));
}

#[test]
fn read_only_disk_under_an_agent_lets_additions_in_and_withdrawals_wait() {
    lab::isolated(|| additions_go_in_and_withdrawals_wait(Disk::ReadOnly, true));
}

/// A first installation needs no disk either.
#[test]
fn file_in_place_of_the_state_dir_holds_up_no_addition() {
    for mode in MODES {
        let cloud = vpc();
        let mut writer = Writer::new(&cloud, mode);
        std::fs::write(state_dir(&writer), "a file").unwrap();
        writer.publish(&document(TOKEN, &BOTH));
        let report = run(writer.pass());
        assert_refused(&report, "state");
        assert_eq!(led(&cloud), set(&BOTH), "{mode} {report:?}");
        writer.publish(&document(TOKEN + 60, &[KEPT, NEW]));
        let report = run(writer.pass());
        // The guard holds the prefixes that no readable record explains.
        assert_eq!(report.exit_code(), 3, "{report:?}");
        assert_named(&report, "state");
        assert_eq!(led(&cloud), set(&[KEPT, GONE, NEW]), "{mode} {report:?}");
    }
}

/// The new directory has no record of earlier documents: prefixes in force stay for `hold_down`.
#[test]
fn removed_state_dir_withdraws_nothing_at_once() {
    for mode in MODES {
        let cloud = vpc();
        let mut writer = Writer::new(&cloud, mode);
        writer.config.guard.hold_down = std::time::Duration::from_secs(3600);
        writer.publish(&document(TOKEN, &BOTH));
        assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
        cloud.watch(TABLE, ["54.231.1.1".parse().unwrap()], IGW);
        std::fs::remove_dir_all(state_dir(&writer)).unwrap();
        writer.options.asking = Asking::Nobody;
        run(writer.pass());
        assert_eq!(led(&cloud), set(&BOTH), "{mode}");
        writer.options.asking = Asking::Source;
        writer.publish(&document(TOKEN + 60, &[KEPT, NEW]));
        let report = run(writer.pass());
        assert_eq!(led(&cloud), set(&[KEPT, GONE, NEW]), "{mode} {report:?}");
        assert!(state_dir(&writer).join("guard.json").exists(), "{report:?}");
        assert!(cloud.strayed().is_empty(), "{mode}: {:?}", cloud.strayed());
        let way = cloud.target_of(TABLE, "3.5.1.1".parse().unwrap());
        assert_eq!(way, Way::Target(IGW.to_owned()));
    }
}

/// Routes that were added while no ledger could be stored are ours: a later document withdraws them.
fn additions_without_a_ledger_are_withdrawn(is_agent: bool, is_foreign: bool) {
    const REFUSED: &str = "3.6.0.0/19";
    let cloud = vpc();
    let mut writer = on_small_disk(&cloud, MODES[1]);
    if is_foreign {
        cloud.set_route(TABLE, "203.0.113.0/24", IGW);
    }
    Disk::ReadOnly.refuse(&writer);
    writer.publish(&document(TOKEN + 60, &[BOTH[0], BOTH[1], NEW, REFUSED]));
    cloud.clear_calls();
    let wrong = Wrong::Code("RouteLimitExceeded".to_owned());
    cloud.fail(cloud.next_call() + 3, Fault::before(wrong));
    let report = run(writer.pass());
    assert_eq!(report.outcome, Outcome::Failed, "{report:?}");
    // The record is complete before the first addition: the process may end at any time.
    let calls = cloud.calls().into_iter().filter(|call| call.mutating);
    let calls: Vec<String> = calls.map(|call| call.action).collect();
    assert_eq!(calls, ["CreateTags", "CreateRoute", "CreateRoute"]);
    let mut all = set(&[BOTH[0], BOTH[1], NEW]);
    if is_foreign {
        all.insert("203.0.113.0/24".to_owned());
    }
    assert_eq!(led(&cloud), all, "{report:?}");
    if !is_agent {
        end_process(&mut writer);
    }
    let report = run(writer.pass());
    assert_eq!(report.error, None, "{report:?}");
    Disk::ReadOnly.recover(&writer);
    if !is_agent {
        end_process(&mut writer);
    }
    assert_eq!(run(writer.pass()).exit_code(), 0);
    writer.publish(&document(TOKEN + 120, &BOTH));
    let report = run(writer.pass());
    assert_eq!(report.exit_code(), 0, "{report:?}");
    all.remove(NEW);
    assert_eq!(led(&cloud), all, "{report:?}");
}

#[test]
fn additions_of_single_passes_without_a_ledger_are_withdrawn() {
    lab::isolated(|| {
        additions_without_a_ledger_are_withdrawn(false, false);
        additions_without_a_ledger_are_withdrawn(false, true);
    });
}

#[test]
fn additions_of_an_agent_without_a_ledger_are_withdrawn() {
    lab::isolated(|| {
        additions_without_a_ledger_are_withdrawn(true, false);
        additions_without_a_ledger_are_withdrawn(true, true);
    });
}

/// The file comes back as it was: the additions meanwhile are in the agent's memory.
#[test]
fn agent_keeps_its_ledger_while_the_file_cannot_be_read() {
    let cloud = vpc();
    let mut writer = Writer::new(&cloud, MODES[1]);
    writer.publish(&document(TOKEN, &BOTH));
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    cloud.set_route(TABLE, "203.0.113.0/24", IGW);
    let file = state_dir(&writer).join("vpc-routes.json");
    let old = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    writer.publish(&document(TOKEN + 60, &[KEPT, NEW]));
    let report = run(writer.pass());
    assert_eq!(report.exit_code(), 1, "{report:?}");
    assert!(report.holds.is_empty(), "{report:?}");
    let all = set(&[KEPT, GONE, NEW, "203.0.113.0/24"]);
    assert_eq!(led(&cloud), all, "{report:?}");
    std::fs::remove_dir(&file).unwrap();
    std::fs::write(&file, old).unwrap();
    writer.publish(&document(TOKEN + 120, &[KEPT]));
    let report = run(writer.pass());
    assert_eq!(report.exit_code(), 0, "{report:?}");
    assert_eq!(led(&cloud), set(&[KEPT, "203.0.113.0/24"]), "{report:?}");
}

/// A guard state that cannot be read: the document that only the agent's memory has stays in force.
#[test]
fn unreadable_guard_state_under_an_agent_forgets_no_newer_document() {
    let cloud = vpc();
    let mut writer = Writer::new(&cloud, "");
    writer.publish(&document(TOKEN, &BOTH));
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    let guard = state_dir(&writer).join("guard.json");
    let _ = std::fs::remove_file(&guard);
    std::fs::create_dir(&guard).unwrap();
    writer.publish(&document(TOKEN + 60, &[KEPT, NEW]));
    assert_named(&run(writer.pass()), "guard.json");
    assert_eq!(led(&cloud), set(&[KEPT, GONE, NEW]));
    // Another program takes the addition away, and the source is silent.
    let ours = list(&cloud, "ipv4").unwrap();
    writer.options.asking = Asking::Nobody;
    for _ in 0..2 {
        cloud.edit_list(&ours, &[], &[NEW.parse().unwrap()]);
        let report = run(writer.pass());
        assert_named(&report, "guard.json");
        let token = report.sync_token.map(|token| token.0);
        assert_eq!(token, Some(TOKEN + 60), "{report:?}");
        assert_eq!(led(&cloud), set(&[KEPT, GONE, NEW]));
    }
}

/// A foreign entry that waits with the withdrawals is not repaired, and is repaired after them.
#[test]
fn foreign_entry_beside_an_unreadable_guard_state_is_left_and_named_until_its_repair() {
    let cloud = vpc();
    let mut writer = Writer::new(&cloud, "");
    writer.publish(&document(TOKEN, &[KEPT]));
    assert_eq!(run(writer.pass()).outcome, Outcome::Changed);
    let foreign = "198.51.100.0/24";
    let ours = list(&cloud, "ipv4").unwrap();
    cloud.edit_list(&ours, &[foreign.parse().unwrap()], &[]);
    let guard = state_dir(&writer).join("guard.json");
    let _ = std::fs::remove_file(&guard);
    std::fs::create_dir(&guard).unwrap();
    writer.publish(&document(TOKEN + 60, &[KEPT, NEW]));
    let journal = state_dir(&writer).join("journal.jsonl");
    let ends = |fate: &str| {
        let journal = std::fs::read_to_string(&journal).unwrap();
        let last = journal.lines().last().unwrap_or_default().to_owned();
        assert!(last.contains(&format!("\"repaired\":{fate}")), "{last}");
    };
    for round in 0..2 {
        let report = run(writer.pass());
        assert_named(&report, "guard.json");
        let [drift] = &report.drift[..] else {
            panic!("{round}: {report:?}")
        };
        assert!(drift.to_string().ends_with("+198.51.100.0/24"), "{drift}");
        assert_eq!(report.repaired, [], "{round}");
        assert_eq!(led(&cloud), set(&[KEPT, NEW, foreign]), "{round}");
        ends("false");
    }
    std::fs::remove_dir(&guard).unwrap();
    writer.options.accept = Some(SyncToken(TOKEN + 60));
    let report = run(writer.pass());
    assert_eq!(report.drift, report.repaired, "{report:?}");
    assert_eq!((report.exit_code(), report.drift.len()), (0, 1));
    assert_eq!(led(&cloud), set(&[KEPT, NEW]));
    ends("true");
}

/// A source that asks for silence (`Retry-After`), beside a disk that takes no record of it.
#[test]
fn silence_of_a_source_outlasts_a_disk_that_refuses_it() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut head) = (stream.unwrap(), [0; 4096]);
            let _ = stream.read(&mut head);
            count.fetch_add(1, Ordering::SeqCst);
            let answer = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 3600\r\n\
                          Content-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let cloud = vpc();
    let mut writer = Writer::new(&cloud, "");
    std::fs::write(state_dir(&writer), "a file").unwrap();
    writer.config.source.urls = vec![format!("http://{address}/ip-ranges.json")];
    run(writer.pass());
    let before = requests.load(Ordering::SeqCst);
    assert!(before > 0);
    for _ in 0..3 {
        let report = run(writer.pass());
        assert_eq!(requests.load(Ordering::SeqCst), before, "{report:?}");
    }
    end_process(&mut writer);
    run(writer.pass());
    assert!(
        requests.load(Ordering::SeqCst) > before,
        "of another process"
    );
}
