//! The order of the source tree: imports run from higher rooms to lower rooms, sibling files form
//! no circle, every public item has a doc comment, functions and files stay short. The test reads
//! the text of `src` and needs no build.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "house/modules.rs"]
mod modules;
#[path = "house/text.rs"]
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use modules::Tree;

/// The rooms from low to high. A room may import lower tiers, and rooms to the left in its own
/// tier. The vocabulary is lowest, so that every stage can use it; the pure core follows in the
/// order of the data flow; then the kernel, the stages above the kernel, and last the programs that
/// run all stages. A new module at the top of `src` needs a place here.
const ROOMS: [&[&str]; 11] = [
    &[
        "words",
        "types",
        "exit",
        "nearest",
        "printable",
        "columns",
        "random",
        "notes",
        "degraded",
    ],
    &["config"],
    &["objects", "facts", "firewall", "ownership"],
    &["ranges", "source", "state"],
    &[
        "guard", "clock", "health", "desired", "observed", "plan", "judge",
    ],
    &["kernel"],
    &["apply", "verify", "journal", "pinned"],
    &["reconcile", "vpc"],
    &["status"],
    &["agent"],
    &["cli", "commands"],
];

/// The longest function, in lines including signature and closing brace.
const LONGEST_FUNCTION: usize = 80;

/// The longest source file, except unit tests in a `tests.rs`.
const LONGEST_FILE: usize = 400;

/// References that a reader outside the project cannot follow.
const UNREACHABLE: [&str; 4] = ["DESIGN", "HOUSE", "issue [A-Z]", "the guard's list"];

fn source() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = BTreeMap::new();
    text::collect(&root.join("src"), &root.join("src"), &mut files);
    assert!(files.len() > 50, "only {} files", files.len());
    files
}

/// Imports from a room to a higher room.
fn upward(tree: &Tree) -> Vec<String> {
    let ranks: BTreeMap<&str, usize> = ROOMS
        .iter()
        .flat_map(|tier| tier.iter())
        .enumerate()
        .map(|(rank, room)| (*room, rank))
        .collect();
    let mut found = BTreeSet::new();
    for (from, to) in tree.imports() {
        let (Some(own), Some(other)) = (from.first(), to.first()) else {
            continue;
        };
        match (ranks.get(own.as_str()), ranks.get(other.as_str())) {
            (Some(low), Some(high)) if low < high => {
                found.insert(format!("{} imports {}", from.join("::"), to.join("::")));
            }
            (Some(_), Some(_)) => {}
            (None, _) => {
                found.insert(format!("{own} has no place in ROOMS"));
            }
            (_, None) => {
                found.insert(format!("{other} has no place in ROOMS"));
            }
        }
    }
    found.into_iter().collect()
}

#[test]
fn imports_run_from_higher_rooms_to_lower_rooms() {
    refuse(upward(&Tree::read(&source())));
}

#[test]
fn sibling_files_form_no_circle() {
    refuse(Tree::read(&source()).circles());
}

#[test]
fn public_items_have_doc_comments() {
    report(text::undocumented);
}

#[test]
fn functions_and_files_are_short() {
    report(|name, text| text::too_long(name, text, LONGEST_FUNCTION, LONGEST_FILE));
}

#[test]
fn comments_point_to_nothing_unreachable() {
    report(|name, text| text::unreachable(name, text, &UNREACHABLE));
}

#[track_caller]
fn report(check: impl Fn(&str, &str) -> Vec<String>) {
    let files = source();
    let found = files.iter().flat_map(|(name, text)| check(name, text));
    refuse(found.collect());
}

#[track_caller]
fn refuse(found: Vec<String>) {
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

fn made_up(files: &[(&str, &str)]) -> Tree {
    let files = files
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect();
    Tree::read(&files)
}

#[test]
fn upward_imports_are_found_in_use_trees_and_inline_paths() {
    let tree = made_up(&[
        ("lib.rs", "pub mod types;\npub mod plan;\npub mod kernel;\n"),
        ("types.rs", "use crate::{plan::{Step as S}, kernel};\n"),
        (
            "plan/mod.rs",
            "mod diff;\nuse crate::types::TableId;\nfn f() { crate::kernel::send() }\n",
        ),
        (
            "plan/diff.rs",
            "// use crate::kernel::x;\nfn f() { super::super::kernel::send() }\n\
             #[cfg(test)]\nmod tests {\n    use crate::kernel::y;\n}\n",
        ),
        ("kernel/mod.rs", "use crate::plan::Step;\n"),
    ]);
    assert_eq!(
        upward(&tree),
        [
            "plan imports kernel",
            "plan::diff imports kernel",
            "types imports kernel",
            "types imports plan",
        ]
    );
    let stray = made_up(&[("attic.rs", "use crate::types::A;\n"), ("types.rs", "")]);
    assert_eq!(upward(&stray), ["attic has no place in ROOMS"]);
}

#[test]
fn circles_are_found_among_siblings_but_not_with_their_parent() {
    let tree = made_up(&[
        ("plan/mod.rs", "mod a;\nmod b;\nmod c;\npub use a::A;\n"),
        ("plan/a.rs", "use super::b::B;\nuse super::Step;\n"),
        ("plan/b.rs", "fn f() { super::c::g() }\n"),
        ("plan/c.rs", "use crate::plan::a::A;\n"),
        ("plan/d.rs", "use super::a::A;\n"),
    ]);
    assert_eq!(tree.circles(), ["plan::a, plan::b, plan::c"]);
    let open = made_up(&[
        ("plan/mod.rs", "mod a;\nmod b;\npub use a::A;\nuse b::B;\n"),
        ("plan/a.rs", "use super::b::B;\n"),
        ("plan/b.rs", "use super::Step;\n"),
    ]);
    assert_eq!(open.circles(), Vec::<String>::new());
    // The import through the parent's re-export is an import of the sibling.
    let hidden = made_up(&[
        ("plan/mod.rs", "mod a;\nmod b;\npub use a::A;\n"),
        ("plan/a.rs", "use super::b::B;\n"),
        ("plan/b.rs", "use super::A;\n"),
    ]);
    assert_eq!(hidden.circles(), ["plan::a, plan::b"]);
}

#[test]
fn undocumented_items_are_found_and_fields_are_excepted() {
    let code = "//! A module.\n\n/// A type.\n#[derive(Debug)]\npub struct Good {\n    pub field: u8,\n}\n\n\
                impl Good {\n    pub fn bad(&self) {}\n\n    /// Fine.\n    #[must_use]\n    pub const fn good() {}\n}\n\n\
                pub type Bad = u8;\npub(crate) fn private() {}\npub use other::Thing;\n\
                mod inner {\n    pub fn hidden() {}\n}\n\
                #[cfg(test)]\nmod tests {\n    pub fn helper() {}\n}\n";
    assert_eq!(
        text::undocumented("x.rs", code),
        [
            "src/x.rs:10: pub fn bad(&self) {}",
            "src/x.rs:17: pub type Bad = u8;"
        ]
    );
    assert_eq!(
        text::undocumented("x.rs", "use a::b;\n"),
        ["src/x.rs:1: no module comment"]
    );
}

#[test]
fn long_functions_and_files_are_found() {
    let code = "//! A module.\nfn short() {\n}\nimpl A {\n    fn long() {\n        1;\n        2;\n    }\n}\n";
    assert_eq!(
        text::too_long("x.rs", code, 3, 8),
        [
            "src/x.rs: 9 lines, more than 8",
            "src/x.rs:5: fn long has 4 lines, more than 3"
        ]
    );
}

#[test]
fn unreachable_references_are_found_in_comments_only() {
    let code =
        "// see DESIGN\nlet DESIGN = 1;\nlet a = 2; // as in issue C\n// REDESIGNED, an issue\n";
    assert_eq!(
        text::unreachable("x.rs", code, &UNREACHABLE),
        [
            "src/x.rs:1: // see DESIGN",
            "src/x.rs:3: let a = 2; // as in issue C"
        ]
    );
}
