//! Imports run one way, downhill: a module uses what stands above it in this
//! list of floors, and nothing below.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The floors from top to bottom, and whether the modules of one may use each
/// other.
const FLOORS: &[(&[&str], Siblings)] = &[
    (
        &["error", "time", "rng", "sync", "backoff", "format"],
        Siblings::Meet,
    ),
    (&["endpoint", "stats", "event", "load"], Siblings::Meet),
    (&["hash"], Siblings::Ignore),
    (&["registry"], Siblings::Ignore),
    (&["view", "health", "topology"], Siblings::Ignore),
    (&["strategy"], Siblings::Ignore),
    (&["balancer"], Siblings::Ignore),
    (&["resilience"], Siblings::Ignore),
    (&["client", "server"], Siblings::Ignore),
    (&["observe", "sim", "testing"], Siblings::Ignore),
    (&["config"], Siblings::Ignore),
    (&["fuzz"], Siblings::Ignore),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Siblings {
    Meet,
    Ignore,
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS
        .iter()
        .position(|(modules, _)| modules.contains(&module))
}

/// Why `module` may not use `used`; none when it may.
fn objection(module: &str, used: &str) -> Option<String> {
    let Some(own) = floor_of(module) else {
        return Some(format!(
            "module `{module}` stands on no floor; give it one in FLOORS of tests/architecture.rs \
             and in DESIGN.md"
        ));
    };
    if module == used {
        return None;
    }
    let Some(other) = floor_of(used) else {
        return Some(format!(
            "`{module}` uses `crate::{used}`, which stands on no floor; name the module that it \
             is defined in, or give a new module its floor in FLOORS of tests/architecture.rs"
        ));
    };
    if other > own {
        return Some(format!(
            "`{module}` uses `{used}`, which stands on a floor below it"
        ));
    }
    if other == own && FLOORS[own].1 == Siblings::Ignore {
        return Some(format!(
            "`{module}` uses `{used}`, its sibling on a floor where they ignore each other"
        ));
    }
    None
}

/// The code alone: comments, the insides of literals, and items that are built
/// for tests only are blanked out; lines stay where they are.
fn code_of(source: &str) -> String {
    without_test_items(&without_comments_and_literals(source))
}

fn without_comments_and_literals(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let before = rest.len();
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(len) = raw_string(rest, &code) {
            len
        } else if first == '"' {
            quoted(rest)
        } else if first == '\'' {
            char_literal(rest)
        } else {
            0
        };
        if skipped == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            // Only the line breaks stay.
            code.extend(rest[..skipped].chars().filter(|&c| c == '\n'));
            code.push(' ');
            rest = &rest[skipped..];
        }
        assert!(rest.len() < before, "every step moves on");
    }
    code
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn raw_string(text: &str, before: &str) -> Option<usize> {
    let in_a_word = |c: char| c.is_alphanumeric() || c == '_';
    if before.ends_with(|c| in_a_word(c) && c != 'b') {
        return None;
    }
    let after = text.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let begun = 1 + hashes + 1;
    let len = text[begun..]
        .find(&end)
        .map_or(text.len(), |at| begun + at + end.len());
    Some(len)
}

fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// A lifetime has no closing quote and is left alone.
fn char_literal(text: &str) -> usize {
    let inner = &text[1..];
    let Some(first) = inner.chars().next() else {
        return 0;
    };
    if first == '\\' {
        return inner[2..].find('\'').map_or(0, |at| 1 + 2 + at + 1);
    }
    let len = first.len_utf8();
    if inner[len..].starts_with('\'') {
        1 + len + 1
    } else {
        0
    }
}

/// Blanks the item behind every attribute whose condition asks for `test` or
/// `doctest`.
fn without_test_items(code: &str) -> String {
    let mut left = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(") {
        let Some(close) = rest[at..].find(")]") else {
            break;
        };
        let condition = &rest[at + "#[cfg(".len()..at + close];
        let begun = at + close + ")]".len();
        let tests_only = asks_for_tests(condition);
        left.push_str(&rest[..at]);
        let end = if tests_only {
            begun + item(&rest[begun..])
        } else {
            begun
        };
        left.extend(rest[at..end].chars().filter(|&c| c == '\n'));
        rest = &rest[end..];
    }
    left.push_str(rest);
    left
}

/// Whether nothing but a test build can have it.
fn asks_for_tests(condition: &str) -> bool {
    let condition = condition.trim();
    let all = condition.strip_prefix("all(").unwrap_or(condition);
    matches!(words(all).next(), Some("test" | "doctest"))
}

/// How long the item is that begins here: to its `;`, or to the end of its
/// braces.
fn item(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
}

/// The first segments of all paths that begin at the crate's root, each with
/// its line: `crate::a::B`, `use crate::{a, b::C}`, and, where the file is a
/// top-level module's own, `super::a` too.
fn uses(code: &str, is_root_of_module: bool) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let roots: &[&str] = if is_root_of_module {
        &["crate::", "super::"]
    } else {
        &["crate::"]
    };
    for root in roots {
        for (at, _) in code.match_indices(root) {
            let whole = !code[..at].ends_with(|c: char| c.is_alphanumeric() || "_:".contains(c));
            if !whole {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            let path = code[at + root.len()..].trim_start();
            found.extend(first_segments(path).map(|segment| (line, segment.to_owned())));
        }
    }
    found.sort();
    found
}

fn first_segments(path: &str) -> impl Iterator<Item = &str> {
    let entries: Vec<&str> = match path.strip_prefix('{') {
        None => vec![path],
        Some(group) => entries_of(group),
    };
    entries.into_iter().filter_map(|entry| words(entry).next())
}

/// The entries of `{…}`, whose first brace is gone, at its own depth.
fn entries_of(group: &str) -> Vec<&str> {
    let (mut depth, mut begun) = (0, 0);
    let mut entries = Vec::new();
    for (at, c) in group.char_indices() {
        let ends = depth == 0 && (c == ',' || c == '}');
        if ends {
            entries.push(&group[begun..at]);
            begun = at + 1;
        }
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            _ => {}
        }
    }
    entries
}

/// What is wrong with one file of a module, each with its line.
fn faults(module: &str, is_root_of_module: bool, source: &str) -> Vec<String> {
    uses(&code_of(source), is_root_of_module)
        .into_iter()
        .filter_map(|(line, used)| Some(format!("line {line}: {}", objection(module, &used)?)))
        .collect()
}

/// Every source by its path under `src`, but for `lib.rs`, which re-exports.
fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder can be read") {
            let path = entry.expect("the entry can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).expect("it is under src");
                let name = name.to_string_lossy().replace('\\', "/");
                found.insert(
                    name,
                    fs::read_to_string(&path).expect("the source can be read"),
                );
            }
        }
    }
    found.remove("lib.rs").expect("there is a lib.rs");
    found
}

#[test]
fn imports_run_downhill() {
    let sources = sources();
    let mut all = Vec::new();
    for (path, source) in &sources {
        let module = path
            .split('/')
            .next()
            .unwrap_or(path)
            .trim_end_matches(".rs");
        if floor_of(module).is_none() {
            all.push(format!(
                "{path}: {}",
                objection(module, module).unwrap_or_default()
            ));
            continue;
        }
        let own = format!("{module}.rs");
        let is_root = *path == own || *path == format!("{module}/mod.rs");
        all.extend(
            faults(module, is_root, source)
                .into_iter()
                .map(|fault| format!("src/{path}, {fault}")),
        );
    }
    assert!(all.is_empty(), "\n{}", all.join("\n"));
}

/// A reader that finds nothing would find nothing wrong.
#[test]
fn the_imports_that_are_there_are_seen() {
    let sources = sources();
    let used_by = |path: &str| -> Vec<String> {
        let source = sources
            .get(path)
            .unwrap_or_else(|| panic!("there is no {path}"));
        uses(&code_of(source), true)
            .into_iter()
            .map(|(_, used)| used)
            .collect()
    };
    let balancer = used_by("balancer/mod.rs");
    for module in ["endpoint", "error", "strategy", "view"] {
        assert!(
            balancer.contains(&module.to_owned()),
            "{module}: {balancer:?}"
        );
    }
    assert!(used_by("view.rs").contains(&"stats".to_owned()));
    assert_eq!(used_by("rng.rs"), [""; 0]);
}

#[test]
fn made_up_faults_are_found() {
    for (module, source, fault) in [
        ("error", "use crate::endpoint::Endpoint;", "below"),
        ("stats", "use crate::registry::Discover;", "below"),
        (
            "strategy",
            "fn f() -> crate::balancer::Pick { todo!() }",
            "below",
        ),
        (
            "registry",
            "\n\nuse crate::{\n    error::Error,\n    view::{Node, View},\n};",
            "line 3",
        ),
        ("view", "pub(crate) use crate::topology::Zone;", "sibling"),
        ("health", "use super::topology::Zone;", "sibling"),
        ("client", "use crate::testing;", "below"),
        ("sim", "use crate::observe::Tracing;", "sibling"),
        ("balancer", "use crate::Pick;", "no floor"),
        ("novelty", "use crate::error::Error;", "give it one"),
        (
            "hash",
            "const A: &str = \"/*\"; use crate::balancer; // */",
            "below",
        ),
        (
            "hash",
            "fn f<'a>(x: &'a str) -> char { crate::view::f('\\'', '\"', x) }",
            "below",
        ),
        ("hash", "#[cfg(not(test))] use crate::view::View;", "below"),
        (
            "hash",
            "#[cfg(feature = \"test\")] use crate::view::View;",
            "below",
        ),
        (
            "hash",
            "#[cfg(test)] mod tests { fn f() {} } use crate::view::View;",
            "below",
        ),
    ] {
        let found = faults(module, true, source);
        assert!(
            found.len() == 1 && found[0].contains(fault),
            "`{source}` in `{module}`: {found:?}"
        );
    }
}

#[test]
fn what_is_no_import_is_no_fault() {
    for (module, source) in [
        (
            "error",
            "//! [`Discover`](crate::registry::Discover)\n/// crate::view\nfn f() {}",
        ),
        (
            "error",
            "/* use crate::view::View; /* nested */ crate::view */ fn f() {}",
        ),
        (
            "error",
            "const A: &str = \"use crate::view::View;\"; const B: &str = r#\"crate::view \"\"#;",
        ),
        (
            "error",
            "#[cfg(test)]\nmod tests {\n    use crate::view::View;\n    fn f() { {} }\n}",
        ),
        (
            "error",
            "#[cfg(all(test, waypost_loom))]\nmod tests { use crate::view::View; }",
        ),
        (
            "error",
            "#[cfg(all(test, not(waypost_loom)))]\nmod tests { use crate::view::View; }",
        ),
        ("error", "#[cfg(test)] use crate::view::View;"),
        ("error", "fn f() { othercrate::view(); my::crate::view(); }"),
        ("error", "use crate::{error::Kind, time};"),
        ("sync", "use crate::rng::Rng;"),
        ("event", "use crate::{endpoint::EndpointSet, stats};"),
        (
            "testing",
            "use crate::{balancer::Balancer, client, registry, strategy::{P2c, Tried}};",
        ),
        (
            "balancer",
            "use crate::balancer::Pick; use crate::view::{self as seen, Node};",
        ),
    ] {
        let found = faults(module, true, source);
        assert!(found.is_empty(), "`{source}` in `{module}`: {found:?}");
    }
}

#[test]
fn every_module_stands_on_one_floor() {
    let mut modules: Vec<&str> = FLOORS
        .iter()
        .flat_map(|(modules, _)| *modules)
        .copied()
        .collect();
    let all = modules.len();
    modules.sort_unstable();
    modules.dedup();
    assert_eq!(modules.len(), all);
}
