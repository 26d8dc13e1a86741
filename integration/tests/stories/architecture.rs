//! The rules of `crates/ARCHITECTURE.md`, held against `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

const PAGE: &str = include_str!("../../../crates/ARCHITECTURE.md");

/// The table: each crate with what it may depend on.
fn rules() -> BTreeMap<String, BTreeSet<String>> {
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    let names = |cell: &str| {
        cell.split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect::<BTreeSet<_>>()
    };
    let row = |cells: Vec<&str>| {
        let allowed = names(cells[2]).into_iter().filter(|name| !name.ends_with(".rs"));
        (cells[0].trim_end_matches('`').to_owned(), allowed.collect())
    };
    cells.map(row).collect()
}

#[test]
fn crates_depend_only_on_what_the_architecture_allows() {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    let rules = rules();
    let members: BTreeSet<String> = metadata
        .packages
        .iter()
        .map(|package| package.name.to_string())
        .collect();
    let outside = ["integration", "echo-plugin"];
    for package in metadata
        .packages
        .iter()
        .filter(|package| !outside.contains(&package.name.as_str()))
    {
        let name = package.name.to_string();
        let allowed = rules
            .get(&name)
            .unwrap_or_else(|| panic!("`{name}` is not in the architecture's table"));
        let used = package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind == DependencyKind::Normal);
        let used: BTreeSet<String> = used
            .map(|dependency| dependency.name.clone())
            .filter(|dependency| members.contains(dependency))
            .collect();
        let excess: Vec<_> = used.difference(allowed).collect();
        assert!(excess.is_empty(), "`{name}` must not depend on {excess:?}");
        let unused: Vec<_> = allowed.difference(&used).collect();
        assert!(
            unused.is_empty(),
            "the architecture allows `{name}` {unused:?}, which it does not use"
        );
    }
    for name in rules.keys() {
        assert!(
            members.contains(name),
            "the architecture speaks of `{name}`, which does not exist"
        );
    }
}

#[test]
fn test_support_is_for_tests() {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    for package in metadata
        .packages
        .iter()
        .filter(|package| package.name.as_str() != "integration")
    {
        let normal = package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind == DependencyKind::Normal);
        let kit = normal
            .filter(|dependency| dependency.name == "prism-testkit")
            .count();
        assert_eq!(kit, 0, "`{}` ships the test kit", package.name);
    }
}
