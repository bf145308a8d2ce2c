//! The modules of a source tree and their imports, read from the text.

use std::collections::{BTreeMap, BTreeSet};

use crate::text::{code_only, without_tests};

/// The path of a module below the crate: `["plan", "diff"]`.
pub type Module = Vec<String>;

/// Modules with the modules named by each, in `use` trees and in inline paths.
pub struct Tree {
    imports: BTreeMap<Module, BTreeSet<Module>>,
}

struct Source {
    /// Every path of every `use`, with the local name of the item.
    uses: Vec<(Vec<String>, String)>,
    inline: Vec<Vec<String>>,
}

impl Tree {
    /// Reads the files of a tree, by their name below `src`.
    pub fn read(files: &BTreeMap<String, String>) -> Tree {
        let sources: BTreeMap<Module, Source> = files
            .iter()
            .filter(|(name, _)| !name.ends_with("tests.rs") && *name != "main.rs")
            .map(|(name, text)| (module_of(name), parse(&code_only(&without_tests(text)))))
            .collect();
        let mut imports = BTreeMap::new();
        for (module, source) in &sources {
            let mut named = BTreeSet::new();
            let paths = source.uses.iter().map(|(path, _)| path);
            for path in paths.chain(&source.inline) {
                named.extend(resolve(module, path, &sources, 0));
            }
            named.remove(module);
            imports.insert(module.clone(), named);
        }
        Tree { imports }
    }

    /// Every import, from the importing module to the imported module.
    pub fn imports(&self) -> impl Iterator<Item = (&Module, &Module)> {
        let all = self.imports.iter();
        all.flat_map(|(from, to)| to.iter().map(move |to| (from, to)))
    }

    /// The groups of modules that import each other, without imports between a module and its own
    /// descendants: a parent names its children, and children use the types of their parent.
    pub fn circles(&self) -> Vec<String> {
        let reachable: BTreeMap<&Module, BTreeSet<&Module>> = self
            .imports
            .keys()
            .map(|module| (module, self.reachable(module)))
            .collect();
        let mut found = BTreeSet::new();
        for (module, targets) in &reachable {
            if targets.contains(*module) {
                let circle: Vec<String> = targets
                    .iter()
                    .filter(|other| {
                        reachable
                            .get(*other)
                            .is_some_and(|back| back.contains(*module))
                    })
                    .map(|other| other.join("::"))
                    .collect();
                found.insert(circle.join(", "));
            }
        }
        found.into_iter().collect()
    }

    fn reachable<'t>(&'t self, from: &'t Module) -> BTreeSet<&'t Module> {
        let mut found = BTreeSet::new();
        let mut open = vec![from];
        while let Some(module) = open.pop() {
            for next in self.imports.get(module).into_iter().flatten() {
                let related = next.starts_with(module) || module.starts_with(next);
                if !related && found.insert(next) {
                    open.push(next);
                }
            }
        }
        found
    }
}

fn module_of(name: &str) -> Module {
    let path = name.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    match path {
        "lib" => Vec::new(),
        _ => path.split('/').map(str::to_owned).collect(),
    }
}

/// Resolves a path to the module of the named item. A path that ends at a re-export of an ancestor
/// leads to the module behind the re-export.
fn resolve(
    module: &Module,
    path: &[String],
    sources: &BTreeMap<Module, Source>,
    depth: usize,
) -> Option<Module> {
    let mut base = match path[0].as_str() {
        "crate" => Vec::new(),
        "self" | "super" => module.clone(),
        first => {
            let mut child = module.clone();
            child.push(first.to_owned());
            sources.get(&child)?;
            module.clone()
        }
    };
    let mut rest = path;
    while let [first, more @ ..] = rest
        && matches!(first.as_str(), "crate" | "self" | "super")
    {
        if first == "super" {
            base.pop()?;
        }
        rest = more;
    }
    while let [first, more @ ..] = rest {
        base.push(first.clone());
        if !sources.contains_key(&base) {
            base.pop();
            break;
        }
        rest = more;
    }
    if let ([item, ..], true) = (rest, depth < 8)
        && let Some(source) = sources.get(&base)
        && base != *module
        && let Some((path, _)) = source.uses.iter().find(|(_, name)| name == item)
    {
        return resolve(&base, path, sources, depth + 1).or(Some(base));
    }
    (!base.is_empty()).then_some(base)
}

/// Collects the paths of `use` declarations, and all other paths from `crate`, `self`, `super` or
/// a lower-case name.
fn parse(code: &str) -> Source {
    let mut uses = Vec::new();
    let mut others = String::new();
    let mut rest = code;
    while let Some(at) = next_use(rest) {
        others.push_str(&rest[..at]);
        let Some(end) = rest[at..].find(';') else {
            break;
        };
        expand("", rest[at + 4..at + end].trim(), &mut uses);
        others.push(' ');
        rest = &rest[at + end + 1..];
    }
    others.push_str(rest);
    Source {
        uses,
        inline: inline_paths(&others),
    }
}

fn next_use(code: &str) -> Option<usize> {
    code.match_indices("use ").map(|(at, _)| at).find(|at| {
        let before = code[..*at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

/// Expands `a::{b, c::{d as e}}` to `a::b` and `a::c::d`.
fn expand(prefix: &str, tree: &str, uses: &mut Vec<(Vec<String>, String)>) {
    if let Some(open) = tree.find('{') {
        let prefix = format!("{prefix}{}", &tree[..open]);
        let inner = &tree[open + 1..tree.rfind('}').unwrap_or(tree.len())];
        let (mut depth, mut start) = (0, 0);
        for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    let part = inner[start..at].trim();
                    if !part.is_empty() {
                        expand(&prefix, part, uses);
                    }
                    start = at + 1;
                }
                _ => {}
            }
        }
        return;
    }
    let (path, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
    let full = format!("{prefix}{path}");
    let mut path: Vec<String> = full
        .split("::")
        .map(|part| part.trim().to_owned())
        .collect();
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    let last = path.last().cloned().unwrap_or_default();
    let name = if alias.is_empty() {
        last
    } else {
        alias.trim().to_owned()
    };
    uses.push((path, name));
}

fn inline_paths(code: &str) -> Vec<Vec<String>> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for run in code.split(|c: char| !word(c) && c != ':') {
        let parts: Vec<String> = run
            .split("::")
            .take_while(|part| !part.is_empty() && part.chars().all(word))
            .map(str::to_owned)
            .collect();
        if parts.len() > 1 && run.starts_with(|c: char| c.is_lowercase() || c == '_') {
            found.push(parts);
        }
    }
    found
}
