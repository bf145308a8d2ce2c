//! Man pages and completions, by their real viewers.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::built::{packages, repository};
use lab::root::{must, run};

/// The .deb's files, unpacked once for these tests.
fn unpacked(name: &str) -> PathBuf {
    let directory = repository()
        .join("target/packages")
        .join(format!("{name}-{}", std::process::id()));
    must(
        Command::new("dpkg-deb")
            .arg("-x")
            .arg(&packages().deb)
            .arg(&directory),
    );
    directory
}

#[test]
fn man_pages_render_without_a_warning() {
    let tree = unpacked("pages");
    let mut pages = 0;
    for section in ["man5", "man8"] {
        let directory = tree.join("usr/share/man").join(section);
        for entry in fs::read_dir(directory).expect("in the package") {
            let path = entry.expect("readable").path();
            let mut man = Command::new("man");
            man.args(["--warnings=all", "--encoding=UTF-8", "--local-file"])
                .arg(&path)
                .env("MANROFFOPT", "-ww")
                .env("MANWIDTH", "80");
            let output = run(&mut man);
            assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{path:?}");
            assert!(output.stdout.contains("NAME"), "{path:?}: {output}");
            // The index (`man -k`) needs exactly this line.
            let index = must(Command::new("lexgrog").arg(&path));
            assert!(index.contains(" - "), "{index}");
            pages += 1;
        }
    }
    assert_eq!(pages, 16);
    fs::remove_dir_all(tree).expect("ours");
}

/// The page as displayed by man.
fn rendered(page: &str) -> String {
    let tree = unpacked(&page.replace('/', "-"));
    let mut man = Command::new("man");
    man.arg("--local-file")
        .arg(tree.join("usr/share/man").join(page))
        .env("MANWIDTH", "200");
    let text = must(&mut man);
    fs::remove_dir_all(tree).expect("ours");
    text
}

#[test]
fn config_man_page_has_every_key() {
    let page = rendered("man5/trailblazer.toml.5.gz");
    let text = fs::read_to_string(repository().join("docs/configuration.md")).expect("a page");
    let mut keys = 0;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("| `")
            && let Some((key, _)) = rest.split_once('`')
        {
            assert!(page.contains(&format!("{key} = ")), "{key}\n{page}");
            keys += 1;
        }
    }
    assert!(keys > 30, "{keys}");
    for leftover in ["](", "**", "`", "|--"] {
        assert!(!page.contains(leftover), "Markdown: {leftover}\n{page}");
    }
}

#[test]
fn command_man_page_has_every_exit_code_and_example() {
    let page = rendered("man8/trailblazer.8.gz");
    for part in [
        "EXIT STATUS",
        "64  wrong usage or config text",
        "trailblazer reconcile --dry-run         print the plan, change nothing",
        "trailblazer-reconcile(8)",
        "/var/lib/trailblazer",
        "TRAILBLAZER_LOG",
    ] {
        assert!(page.contains(part), "{part}\n{page}");
    }
}

#[test]
fn every_shell_completes_the_commands() {
    let tree = unpacked("shells");
    let share = tree.join("usr/share");

    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c"])
        .arg(
            "source \"$1\" && COMP_WORDS=(trailblazer rec) COMP_CWORD=1 \
             && _trailblazer trailblazer rec trailblazer && echo \"${COMPREPLY[@]}\" \
             && complete -p trailblazer",
        )
        .arg("bash")
        .arg(share.join("bash-completion/completions/trailblazer"));
    let said = must(&mut bash);
    assert!(said.starts_with("reconcile\n"), "{said}");
    assert!(said.contains("-F _trailblazer trailblazer"), "{said}");

    let mut zsh = Command::new("zsh");
    zsh.args(["-f", "-c"])
        .arg(
            "fpath=(\"$1\" $fpath); autoload -Uz compinit && compinit -u -D \
             && autoload +X _trailblazer && echo $_comps[trailblazer]",
        )
        .arg("zsh")
        .arg(share.join("zsh/vendor-completions"));
    assert_eq!(must(&mut zsh).trim(), "_trailblazer");

    let mut fish = Command::new("fish");
    fish.args(["--no-config", "-c"])
        .arg("source $argv[1]; complete -C 'trailblazer rec'")
        .arg(share.join("fish/vendor_completions.d/trailblazer.fish"))
        .env("HOME", &tree);
    let said = must(&mut fish);
    assert!(said.starts_with("reconcile\t"), "{said}");
    fs::remove_dir_all(tree).expect("ours");
}
