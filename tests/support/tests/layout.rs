//! The layout of the source: which file may import which. Read from the source itself, so that an arrow that goes up, or
//! two files that import each other, fail here and not in a reader's head.

#![allow(clippy::unwrap_used, reason = "all of it is test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{
    Attribute, ItemMod, ItemUse, UseTree, Visibility,
    visit::{self, Visit},
};
use test_support::repository;

/// The path of a module, such as `["update", "proof"]`; the crate itself is empty.
type Module = Vec<String>;

/// What the files of one crate import from one another.
struct Crate(BTreeMap<Module, BTreeSet<Module>>);

impl Crate {
    fn read(source: &str) -> Self {
        let root = repository().join(source);
        let mut files = BTreeMap::new();
        collect(&root, &root, &mut files);
        let modules: BTreeSet<Module> = files.keys().cloned().collect();
        let imports = files.iter().map(|(module, file)| {
            let syntax = syn::parse_file(&fs::read_to_string(file).unwrap()).unwrap();
            let mut paths = Paths(Vec::new());
            paths.visit_file(&syntax);
            let imported = paths.0.iter().filter_map(|path| resolve(module, path, &modules));
            (module.clone(), imported.filter(|other| other != module && !other.is_empty()).collect())
        });
        Self(imports.collect())
    }

    /// Files that import one another, directly or through others.
    fn circles(&self) -> Vec<String> {
        let reaches = |from: &Module, to: &Module| {
            let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
            while let Some(next) = open.pop() {
                for other in &self.0[next] {
                    if other == to {
                        return true;
                    }
                    if seen.insert(other) {
                        open.push(other);
                    }
                }
            }
            false
        };
        self.0.keys().filter(|module| reaches(module, module)).map(|module| module.join("::")).collect()
    }

    /// Imports by files of `room` of files of another room that it must not know.
    fn imports(&self, room: &str, forbidden: &[&str]) -> Vec<String> {
        let is_in = |module: &Module, room: &str| module.first().is_some_and(|first| first == room);
        let own = self.0.iter().filter(|(module, _)| is_in(module, room));
        let all = own.flat_map(|(module, imports)| imports.iter().map(move |other| (module, other)));
        let wrong = all.filter(|(_, other)| forbidden.iter().any(|room| is_in(other, room)));
        wrong.map(|(module, other)| format!("{} imports {}", module.join("::"), other.join("::"))).collect()
    }
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<Module, PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if is_test(&path) {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let inner = path.strip_prefix(root).unwrap().with_extension("");
            let mut module: Module = inner.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            module.retain(|part| !matches!(part.as_str(), "mod" | "lib" | "main"));
            files.insert(module, path);
        }
    }
}

/// Tests may know anything.
fn is_test(path: &Path) -> bool {
    matches!(path.file_stem().and_then(|stem| stem.to_str()), Some("tests" | "testing" | "main"))
}

/// The module that a path names, as far as it is one: the rest of the path is an item in it.
fn resolve(module: &Module, path: &[String], modules: &BTreeSet<Module>) -> Option<Module> {
    let (first, rest) = path.split_first()?;
    let mut at: Module = match first.as_str() {
        "crate" => Vec::new(),
        "self" => module.clone(),
        "super" => module[..module.len().checked_sub(1)?].to_vec(),
        _ => return None,
    };
    for part in rest {
        if part == "super" {
            at.pop();
            continue;
        }
        at.push(part.clone());
        if !modules.contains(&at) {
            at.pop();
            break;
        }
    }
    Some(at)
}

/// All paths of a file that begin with `crate`, `self` or `super`, outside its tests.
struct Paths(Vec<Vec<String>>);

impl Paths {
    fn add(&mut self, tree: &UseTree, before: &[String]) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.add(&path.tree, &with(&path.ident)),
            UseTree::Name(name) => self.0.push(with(&name.ident)),
            UseTree::Rename(rename) => self.0.push(with(&rename.ident)),
            UseTree::Glob(_) => self.0.push(before.to_vec()),
            UseTree::Group(group) => group.items.iter().for_each(|item| self.add(item, before)),
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !item.attrs.iter().any(is_cfg_test) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.add(&item.tree, &[]);
    }

    /// `pub(super)` says who may see an item, and imports nothing.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.0.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }
}

fn is_cfg_test(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
}

#[test]
fn no_two_files_of_the_policy_import_each_other() {
    assert_eq!(Crate::read("controller/plan/src").circles(), Vec::<String>::new());
}

#[test]
fn no_two_files_of_the_controller_import_each_other() {
    assert_eq!(Crate::read("controller/src").circles(), Vec::<String>::new());
}

#[test]
fn arrows_between_the_rooms_of_the_policy_go_down_only() {
    let policy = Crate::read("controller/plan/src");
    let vocabulary = ["names", "policy", "observation", "memory", "actions", "report"];
    let above = |rooms: &'static [&str]| rooms;
    for room in vocabulary {
        assert_eq!(policy.imports(room, above(&["evidence", "situation", "update", "rules", "explain"])), [""; 0]);
    }
    for (room, forbidden) in [
        ("evidence", above(&["situation", "update", "rules", "explain"])),
        ("situation", above(&["update", "rules", "explain"])),
        ("update", above(&["situation", "rules", "explain"])),
        ("rules", above(&["update", "explain"])),
        ("explain", above(&["update"])),
    ] {
        assert_eq!(policy.imports(room, forbidden), [""; 0], "{room}");
    }
}

#[test]
fn a_circle_and_an_arrow_that_goes_up_are_found() {
    let module = |name: &str| -> Module { name.split("::").map(str::to_owned).collect() };
    let arrows = [("rules::hold", "update::proof"), ("update::proof", "rules::hold"), ("names", "rules::hold")];
    let small = Crate(arrows.map(|(from, to)| (module(from), [module(to)].into())).into());
    assert_eq!(small.circles(), ["rules::hold", "update::proof"]);
    assert_eq!(small.imports("names", &["rules"]), ["names imports rules::hold"]);
}
