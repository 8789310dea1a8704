//! The workspace as cargo sees it: its crates, what each imports, and what each shows.
//!
//! Read from `cargo metadata --no-deps`, which needs neither the network nor anything built.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// All crates of the workspace, in the order of their names.
#[derive(Debug)]
pub struct Workspace {
    /// The folder that holds `Cargo.lock`.
    pub root: PathBuf,
    /// Its members.
    pub crates: Vec<Crate>,
}

/// One member.
#[derive(Debug)]
pub struct Crate {
    /// As in `Cargo.toml`.
    pub name: String,
    /// The folder of its `Cargo.toml`.
    pub folder: PathBuf,
    /// `rust-version`, if it has one.
    pub rust_version: Option<String>,
    /// Whether `cargo publish` would take it.
    pub published: bool,
    /// What it imports, in every kind.
    pub imports: Vec<Import>,
    /// Features by name, without those that an optional dependency makes by itself.
    pub features: Vec<String>,
    /// What `default` switches on.
    pub default_features: Vec<String>,
    /// Whether others can import it.
    pub is_library: bool,
    /// Programs that show something.
    pub examples: Vec<Example>,
    /// Integration tests by name.
    pub tests: Vec<String>,
}

/// A direct dependency.
#[derive(Debug)]
pub struct Import {
    /// The crate.
    pub name: String,
    /// For what.
    pub kind: Kind,
    /// Whether a feature must ask for it.
    pub optional: bool,
    /// The platform it is for, if not for every one.
    pub target: Option<String>,
}

/// For what a dependency is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// For whoever uses the crate.
    Normal,
    /// For its build script.
    Build,
    /// For its tests and examples.
    Dev,
}

/// A program under `examples/`.
#[derive(Debug)]
pub struct Example {
    /// As `cargo run --example` knows it.
    pub name: String,
    /// Its main file.
    pub path: PathBuf,
    /// Features without which cargo does not build it.
    pub needs: Vec<String>,
}

impl Workspace {
    /// The workspace that this crate is a member of.
    ///
    /// # Panics
    ///
    /// If cargo cannot read it.
    #[track_caller]
    pub fn read() -> Workspace {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata writes JSON");
        let mut crates: Vec<Crate> = list(&metadata["packages"]).map(Crate::of).collect();
        crates.sort_by(|a, b| a.name.cmp(&b.name));
        Workspace { root: text(&metadata["workspace_root"]).into(), crates }
    }

    /// The crate of this name.
    pub fn get(&self, name: &str) -> Option<&Crate> {
        self.crates.iter().find(|member| member.name == name)
    }

    /// Every file of the project whose name ends with one of `endings`, in the order of their paths. Hidden folders and
    /// what cargo builds are passed over.
    pub fn files(&self, endings: &[&str]) -> Vec<SourceFile> {
        let mut files = Vec::new();
        walk(&self.root, &mut |path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if endings.iter().any(|ending| name.ends_with(ending)) {
                files.push(SourceFile::read(&self.root, path));
            }
        });
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files
    }
}

impl Crate {
    fn of(package: &Value) -> Crate {
        let manifest = Path::new(text(&package["manifest_path"]));
        let targets = |kind: &'static str| {
            list(&package["targets"]).filter(move |target| list(&target["kind"]).any(|k| k == kind))
        };
        let imports = list(&package["dependencies"]).map(Import::of).collect();
        let features = package["features"].as_object().into_iter().flatten();
        Crate {
            name: text(&package["name"]).into(),
            folder: manifest.parent().unwrap_or(manifest).into(),
            rust_version: package["rust_version"].as_str().map(String::from),
            published: package["publish"].is_null(),
            imports,
            features: features.map(|(name, _)| name.clone()).filter(|name| name != "default").collect(),
            default_features: strings(&package["features"]["default"]),
            is_library: targets("lib").next().is_some(),
            examples: targets("example").map(Example::of).collect(),
            tests: targets("test").map(|target| text(&target["name"]).into()).collect(),
        }
    }
}

impl Import {
    fn of(dependency: &Value) -> Import {
        Import {
            name: text(&dependency["name"]).into(),
            kind: match dependency["kind"].as_str() {
                Some("dev") => Kind::Dev,
                Some("build") => Kind::Build,
                _ => Kind::Normal,
            },
            optional: dependency["optional"] == true,
            target: dependency["target"].as_str().map(String::from),
        }
    }
}

impl Example {
    fn of(target: &Value) -> Example {
        Example {
            name: text(&target["name"]).into(),
            path: text(&target["src_path"]).into(),
            needs: strings(&target["required-features"]),
        }
    }
}

/// A file of the project, with its text.
#[derive(Debug)]
pub struct SourceFile {
    /// From the root of the workspace, with `/` between the parts.
    pub path: String,
    /// What it says.
    pub text: String,
}

impl SourceFile {
    fn read(root: &Path, path: &Path) -> SourceFile {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let path = path.strip_prefix(root).unwrap_or(path);
        let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
        SourceFile { path: parts.join("/"), text }
    }

    /// Its lines, counted from one.
    pub fn lines(&self) -> impl Iterator<Item = (Place<'_>, &str)> {
        (1..).zip(self.text.lines()).map(|(line, text)| (Place { path: &self.path, line }, text))
    }

    /// Its lines of code, each without the `//` comment at its end.
    pub fn code(&self) -> impl Iterator<Item = (Place<'_>, &str)> {
        self.lines().map(|(place, line)| (place, line.split_once("//").map_or(line, |(code, _)| code)))
    }
}

/// A line of a file, as an editor or a terminal makes a link of it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    path: &'a str,
    line: usize,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path, self.line)
    }
}

fn walk(folder: &Path, see: &mut impl FnMut(&Path)) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("a folder that can be opened can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // `.ci` is ours; other hidden things are git's, or an editor's.
        let skipped = name.starts_with("target") || name.starts_with('.') && name != ".ci";
        if path.is_dir() {
            // A `CACHEDIR.TAG` is how cargo marks what it builds, under whatever name.
            if !skipped && !path.join("CACHEDIR.TAG").exists() {
                walk(&path, see);
            }
        } else if !path.is_symlink() {
            see(&path);
        }
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn strings(value: &Value) -> Vec<String> {
    list(value).map(|item| text(item).into()).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
