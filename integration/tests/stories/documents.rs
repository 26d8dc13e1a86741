//! Documents and files that say what the code does.

use std::path::Path;

/// The plugin's manifest and the configuration reference are made from the code.
#[test]
fn generated_files_are_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (name, text) in integration::generated().unwrap() {
        let written = std::fs::read_to_string(root.join(name)).unwrap_or_default();
        assert!(written == text, "{name} is stale, run `make generate`");
    }
}

/// Every relative link of the documentation leads somewhere.
#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let pages = [
        "README.md",
        "CONTRIBUTING.md",
        "crates/ARCHITECTURE.md",
        "docs/decisions/README.md",
        "docs/filters.md",
        "docs/operations.md",
    ];
    for page in pages {
        let text = std::fs::read_to_string(root.join(page)).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = root.join(page).parent().unwrap().join(file);
            assert!(path.exists(), "{page} links to {target}, which is not there");
            let there = heading.is_empty() || headings(&path).any(|found| found == heading);
            assert!(there, "{page} links to {target}, where there is no such heading");
        }
    }
}

/// The headings of a page, as links name them.
fn headings(page: &Path) -> impl Iterator<Item = String> {
    let text = std::fs::read_to_string(page).unwrap();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let names = headings.map(|line| line.trim_start_matches('#').trim().to_lowercase());
    let plain = |name: String| {
        name.replace(' ', "-")
            .replace(|letter: char| !letter.is_alphanumeric() && letter != '-', "")
    };
    names.map(plain).collect::<Vec<_>>().into_iter()
}

/// The metrics that the operations page lists are those that exist.
#[test]
fn the_operations_page_lists_every_metric_of_a_runner() {
    let page = include_str!("../../../docs/operations.md");
    for name in multicast_registry::metrics::NAMES {
        assert!(page.contains(&format!("`{name}`")), "{name} is not documented");
    }
}

/// The configuration reference has every key of every backend.
#[test]
fn every_configuration_key_is_documented_with_a_meaning() {
    for backend in multicast_registry::config::backend_schemas() {
        let described = backend.to_value();
        let properties = described["config_schema"]["properties"]
            .as_object()
            .unwrap()
            .clone();
        for (key, property) in properties {
            let meaning = property["description"].as_str().unwrap_or_default();
            assert!(!meaning.is_empty(), "`{key}` of {} says nothing", backend.backend);
        }
    }
}

/// The compose file is YAML, and the configuration in it is one that loads.
#[test]
fn the_deployment_is_well_formed() {
    let text = include_str!("../../../deploy/compose.yaml");
    let compose: serde_json::Value = serde_saphyr::from_str(text).unwrap();
    let content = compose["configs"]["prism"]["content"].as_str().unwrap();
    let config: serde_json::Value = serde_saphyr::from_str(content).unwrap();
    for namespace in config["namespaces"].as_array().unwrap() {
        multicast_registry::config::Namespace::read(None, namespace).unwrap();
    }
    let containerfile = include_str!("../../../deploy/Containerfile");
    for binary in ["prism-proxy", "multicast-registry-runner", "prism-probe"] {
        assert!(containerfile.contains(&format!("target/release/{binary}")));
    }
}
