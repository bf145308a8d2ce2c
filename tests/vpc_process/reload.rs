//! SIGHUP: settings that are refused, and settings that are taken.

use crate::world::*;

#[test]
fn bad_settings_are_refused_and_the_earlier_ones_stay_in_force() {
    let scene = Scene::new("");
    let agent = Agent::start(&scene);
    scene.wait_for_state(&agent, "in_force");
    let refused = |agent: &Agent, part: &str| {
        let ready = agent.notifications("READY=1");
        agent.signal("HUP");
        assert!(eventually(|| agent.notifications("READY=1") > ready));
        let status = scene.status();
        let reason = status["config"]["refused"]["reason"].as_str().unwrap();
        assert!(reason.contains(part), "{part}: {status}");
        assert_eq!(status["state"], "in_force", "{status}");
    };
    scene.configure("headroom = \"wide\"\n");
    refused(&agent, "headroom");
    scene.configure("");
    let config = std::fs::read_to_string(scene.path("c.toml")).unwrap();
    let config = config.replacen("role = \"vpc\"", "role = \"host\"", 1);
    std::fs::write(scene.path("c.toml"), config).unwrap();
    refused(&agent, "restart the agent for another role");
    // Sound, and no table of this account.
    scene.write_config("rtb-0bbbbbbbbbbbbbbb9", "");
    refused(&agent, "rtb-0bbbbbbbbbbbbbbb9");
    scene.publish(TOKEN + 60, &["3.5.0.0/19", "2600:1fa0::/40"]);
    assert!(eventually(|| scene.ipv4() == ["3.5.0.0/19"]));
    let text = text(&scene.run(&["history"]));
    assert!(text.contains("refused"), "{text}");
}

#[test]
fn new_settings_are_tried_and_taken() {
    let scene = Scene::new("");
    let agent = Agent::start(&scene);
    scene.wait_for_state(&agent, "in_force");
    let ready = agent.notifications("READY=1");
    scene.configure("name = \"storage\"\n");
    agent.signal("HUP");
    assert!(eventually(|| agent.notifications("READY=1") > ready));
    assert!(
        agent.log().contains("new config accepted"),
        "{}",
        agent.log()
    );
    let status = scene.status();
    assert!(status["config"]["refused"].is_null(), "{status}");
    assert_eq!(status["config"]["differs"], false, "{status}");
}
