//! Ends of the agent, other settings, and other commands of Trailblazer beside the agent.

use rustix::process::Signal;

use crate::*;

/// A lab and an instance with an agent that protects its table.
fn protected(body: impl FnOnce(&Lab, &mut Machine, Agent)) {
    let lab = behind_nat1(NatLayout::TwoInterfaces);
    let mut machine = machine(&lab, Firewall::Nftables, true);
    let agent = machine.agent();
    agent.wait_in_force();
    assert!(is_protected(lab.ns("nat1"), TABLE));
    body(&lab, &mut machine, agent);
}

/// A stranger's flush takes the table away, and the repair comes later.
#[track_caller]
fn assert_flushed_by_stranger(ns: &Ns) {
    let before = handle(ns, TABLE);
    assert_ne!(before, None);
    flush_by_stranger(ns);
    assert_ne!(handle(ns, TABLE), before);
}

#[track_caller]
fn assert_not_flushed_by_stranger(ns: &Ns) {
    let before = handle(ns, TABLE);
    assert_ne!(before, None);
    flush_by_stranger(ns);
    assert_eq!(handle(ns, TABLE), before);
}

#[test]
fn killed_agent_leaves_its_table_in_force_and_the_next_one_takes_it_over() {
    isolated(|| {
        protected(|lab, machine, agent| {
            let nat1 = lab.ns("nat1");
            assert_not_flushed_by_stranger(nat1);
            let flow = lab.long_flow("host1", PARTNER);
            let before = handle(nat1, TABLE);
            agent.kill();
            assert_eq!(handle(nat1, TABLE), before);
            assert!(!is_protected(nat1, TABLE));
            assert_translated(lab);

            let agent = machine.agent();
            wait_protected(nat1, TABLE);
            agent.wait_in_force();
            assert_not_flushed_by_stranger(nat1);
            assert_translated(lab);
            flow.assert_alive();
            assert_eq!(handle(nat1, TABLE), before, "the same table");
            let status = agent.wait_in_force();
            assert_eq!(status["passes"][0]["outcome"], "in_sync", "{status:#}");

            // The table of a dead agent belongs to everybody.
            agent.kill();
            assert_flushed_by_stranger(nat1);
            machine.changed();
            machine.flush();
            assert_eq!(listed(nat1, TABLE), None);
        });
    });
}

#[test]
fn agent_without_the_setting_and_agent_with_it_follow_each_other() {
    isolated(|| {
        let lab = behind_nat1(NatLayout::TwoInterfaces);
        let nat1 = lab.ns("nat1");
        let mut machine = machine(&lab, Firewall::Nftables, false);
        let agent = machine.agent();
        agent.wait_in_force();
        assert!(!is_protected(nat1, TABLE));
        let flow = lab.long_flow("host1", PARTNER);
        agent.kill();
        protecting(&mut machine, &lab, true);
        let agent = machine.agent();
        wait_protected(nat1, TABLE);
        assert_not_flushed_by_stranger(nat1);

        // A reload without the setting opens the table, and leaves it in place.
        protecting(&mut machine, &lab, false);
        let before = handle(nat1, TABLE);
        agent.signal(Signal::HUP);
        eventually("the table is open", || !is_protected(nat1, TABLE));
        agent.wait_in_force();
        assert_eq!(handle(nat1, TABLE), before);
        flow.assert_alive();
        assert_flushed_by_stranger(nat1);
        eventually("the agent restores the table", || {
            listed(nat1, TABLE).is_some()
        });
        agent.stop();
    });
}

#[test]
fn flush_removes_the_table_of_a_running_a_killed_and_a_stopped_agent() {
    isolated(|| {
        protected(|lab, machine, agent| {
            let nat1 = lab.ns("nat1");
            machine.flush();
            assert_eq!(listed(nat1, TABLE), None);
            assert_eq!(agent.status().unwrap()["state"], "paused");
            machine.run(&["kick", "--wait"]).ok();
            wait_protected(nat1, TABLE);
            assert_translated(lab);
            // A flush during a pass: the pass neither keeps nor restores the table.
            for _ in 0..5 {
                machine.run(&["kick"]).ok();
                machine.flush();
                assert_eq!(listed(nat1, TABLE), None);
            }
            machine.run(&["kick", "--wait"]).ok();
            wait_protected(nat1, TABLE);

            agent.kill();
            machine.flush();
            assert_eq!(listed(nat1, TABLE), None);

            let agent = machine.agent();
            wait_protected(nat1, TABLE);
            agent.stop();
            machine.flush();
            assert_eq!(listed(nat1, TABLE), None);
        });
    });
}

#[test]
fn flush_names_the_remedy_beside_an_agent_that_does_not_answer() {
    isolated(|| {
        protected(|lab, machine, agent| {
            let nat1 = lab.ns("nat1");
            agent.signal(Signal::STOP);
            let flushed = machine.run(&["flush"]).expect_code(1);
            let stderr = flushed.stderr.as_str();
            assert!(
                stderr.contains("a running agent has the table for itself"),
                "{stderr}"
            );
            assert!(stderr.contains("stop the agent"), "{stderr}");
            // All other objects are gone.
            assert!(!nat1.ip("rule").contains("30000"), "{}", nat1.ip("rule"));
            agent.signal(Signal::CONT);
            agent.kill();
            machine.flush();
            assert_eq!(listed(nat1, TABLE), None);
        });
    });
}

#[test]
fn single_passes_beside_the_agent_change_the_table_and_the_agent_takes_it_back() {
    isolated(|| {
        protected(|lab, machine, agent| {
            let nat1 = lab.ns("nat1");
            let before = handle(nat1, TABLE);
            machine.in_sync();
            machine.run(&["reconcile", "--dry-run"]).ok();
            machine.run(&["shut"]).ok();
            assert_eq!(handle(nat1, TABLE), before, "nothing to change");
            assert!(is_protected(nat1, TABLE));
            assert!(
                !agent.log().contains("is about to change"),
                "{}",
                agent.log()
            );

            // Other settings, which the agent has not read yet.
            let case = one_gateway(NatLayout::TwoInterfaces, Firewall::Nftables);
            let settings = (case.settings)(&lab.nat1);
            machine.configure(&format!(
                "random_ports = false\n{SOURCES}{settings}[kernel]\nprotect_table = true\n"
            ));
            let flow = lab.long_flow("host1", PARTNER);
            machine.changed();
            assert_ne!(handle(nat1, TABLE), before);
            assert!(
                agent.log().contains("is about to change"),
                "{}",
                agent.log()
            );
            wait_protected(nat1, TABLE);
            agent.signal(Signal::HUP);
            agent.wait_for("the new settings", |_| {
                let text = nat1.exec(&["nft", "list", "table", "inet", TABLE]).stdout;
                is_protected(nat1, TABLE) && !text.contains("random")
            });
            agent.wait_in_force();
            machine.in_sync();
            assert_not_flushed_by_stranger(nat1);
            flow.assert_alive();
            assert_translated(lab);
            agent.stop();
            machine.flush();
            assert_eq!(listed(nat1, TABLE), None);
        });
    });
}

#[test]
fn single_pass_without_a_way_to_the_agent_leaves_the_table_and_says_why() {
    isolated(|| {
        protected(|lab, machine, agent| {
            let nat1 = lab.ns("nat1");
            let before = handle(nat1, TABLE);
            let case = one_gateway(NatLayout::TwoInterfaces, Firewall::Nftables);
            let settings = (case.settings)(&lab.nat1);
            machine.configure(&format!(
                "random_ports = false\n{SOURCES}{settings}[agent]\nsocket = \"{}/none.sock\"\n",
                scratch().display()
            ));
            let pass = machine.run(&["reconcile"]);
            assert_ne!(pass.code, Some(0), "{pass:?}");
            assert!(
                pass.stderr
                    .contains("does not release it: no agent is running"),
                "{pass:?}"
            );
            assert_eq!(handle(nat1, TABLE), before);
            assert!(is_protected(nat1, TABLE));
            assert_translated(lab);
            agent.stop();
        });
    });
}

#[test]
fn flush_with_another_config_pauses_the_agent_that_protects_the_table() {
    isolated(|| {
        protected(|lab, _machine, agent| {
            let nat1 = lab.ns("nat1");
            let other = lab.config(
                "other",
                "[source]\nstate_dir = \"$STATE\"\n[agent]\nsocket = \"$STATE/none.sock\"\n",
            );
            let flushed = trailblazer(nat1, &["flush", "-c", &other]).ok();
            assert!(flushed.stderr.contains("is paused"), "{flushed:?}");
            assert_eq!(listed(nat1, TABLE), None);
            assert_eq!(agent.status().unwrap()["state"], "paused");
            let rules = nat1.ip("rule");
            assert!(
                !rules.contains("proto 83") && !rules.contains("30000"),
                "{rules}"
            );
        });
    });
}
