//! The front pages say what is so: features, versions, files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn read(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The names in the first column of the table below `| feature |`.
fn features_told(text: &str) -> BTreeSet<String> {
    text.lines()
        .map(|line| line.trim_start_matches("//!").trim())
        .skip_while(|line| !line.starts_with("| feature |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| Some(line.split('`').nth(1)?.to_owned()))
        .collect()
}

fn manifest_value(key: &str) -> String {
    let manifest = read("Cargo.toml");
    let prefix = format!("{key} = \"");
    let line = manifest.lines().find(|line| line.starts_with(&prefix));
    let line = line.unwrap_or_else(|| panic!("Cargo.toml has no {key}"));
    line[prefix.len()..].trim_end_matches('"').to_owned()
}

#[test]
fn the_tables_of_features_name_each_of_them() {
    let manifest = read("Cargo.toml");
    let features: BTreeSet<String> = manifest
        .lines()
        .skip_while(|line| *line != "[features]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line.split_once(" =")?.0.to_owned()))
        .filter(|name| name != "default")
        .collect();
    assert!(
        features.contains("http"),
        "the section was found: {features:?}"
    );
    for page in ["README.md", "src/lib.rs"] {
        assert_eq!(features_told(&read(page)), features, "{page}");
    }
    let ci = read(".ci/run");
    let built_alone = ci
        .lines()
        .find_map(|line| line.trim().strip_prefix("for feature in "))
        .expect("CI builds each feature alone");
    for feature in &features {
        assert!(
            built_alone.split([' ', ';']).any(|word| word == feature),
            "{feature}"
        );
    }
}

#[test]
fn the_readme_tells_the_oldest_compiler() {
    let sentence = format!("Rust {} or later", manifest_value("rust-version"));
    assert!(read("README.md").contains(&sentence), "{sentence}");
}

#[test]
fn the_changelog_knows_this_version() {
    let changelog = read("CHANGELOG.md");
    let version = format!("\n## {}", manifest_value("version"));
    assert!(changelog.contains(&version) || changelog.contains("\n## Unreleased"));
}

#[test]
fn every_link_to_a_file_leads_somewhere() {
    let mut pages: Vec<PathBuf> = ["README.md", "CHANGELOG.md", "benches/peers/README.md"]
        .map(|page| root().join(page))
        .into();
    let docs = fs::read_dir(root().join("docs")).expect("there are docs");
    pages.extend(docs.map(|entry| entry.expect("it can be read").path()));
    for page in pages {
        let text = fs::read_to_string(&page).expect("a page is text");
        let beside = page.parent().unwrap_or(Path::new("."));
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let file = link.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") {
                assert!(beside.join(file).exists(), "{}: {link}", page.display());
            }
        }
    }
}
