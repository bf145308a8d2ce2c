//! `check` of single routes: the plan of a pass, and the permissions of its calls.

use std::collections::BTreeSet;

use crate::world::*;

const ROUTES: &str = "mode = \"routes\"";

fn deny(scene: &Scene, actions: &[&str]) {
    let denied: BTreeSet<String> = actions.iter().map(|it| (*it).to_owned()).collect();
    scene.cloud.configure(|settings| settings.denied = denied);
}

#[test]
fn check_of_single_routes_plans_routes_and_needs_no_permission_of_lists() {
    let scene = Scene::new(ROUTES);
    let output = scene.run(&["reconcile"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let writes = scene.cloud.writes();
    deny(
        &scene,
        &[
            "CreateManagedPrefixList",
            "ModifyManagedPrefixList",
            "DeleteManagedPrefixList",
        ],
    );
    let output = scene.run(&["check"]);
    let page = text(&output);
    assert_eq!(output.status.code(), Some(0), "{page}");
    assert!(page.contains("in sync"), "{page}");
    assert!(!page.contains("the first pass creates the list"), "{page}");
    let needed = [
        "CreateRoute",
        "CreateTags",
        "DeleteRoute",
        "DeleteTags",
        "ReplaceRoute",
    ];
    let allowed = format!("dry runs allowed: {}", needed.join(", "));
    assert!(page.contains(&allowed), "{page}");
    for action in needed {
        deny(&scene, &[action]);
        let output = scene.run(&["check"]);
        let page = text(&output);
        assert_eq!(output.status.code(), Some(1), "{action}: {page}");
        assert!(page.contains(action), "{page}");
    }
    assert_eq!(scene.cloud.writes(), writes);
    // The plan has the routes of a new document.
    deny(&scene, &[]);
    let lost = "52.216.0.0/15";
    scene.cloud.drop_route(TABLE, lost);
    let page = text(&scene.run(&["check"]));
    assert!(page.contains("a pass would make 1 change"), "{page}");
    assert!(!page.contains("1 changes"), "{page}");
}
