//! `pagebert site`: the page and a bundle become one folder that any web host can serve.
//!
//! Owns the layout of SITE and the names in it. Of the bundle it knows only the list of files in its
//! manifest; of the page only `engine.json`. It must not know what weights or scripts mean.

mod compress;
mod files;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde_json::Value;

use pagebert_model::bundle::VERSION;

use crate::UsageError;
use crate::cli::SiteArgs;
use crate::progress::{Bar, Console, Unit, human_bytes};
use files::{files_below, measure, plain_path, pour, rename, resolved, slashed};

/// Lists what pagebert put into SITE, so that a later run replaces that and nothing else.
const LIST: &str = ".pagebert-site";
/// Where the bundle goes within SITE.
const MODEL: &str = "model";
/// Hex digits of a hash in a name: more than enough to tell versions apart.
const HASH_DIGITS: usize = 16;

/// A file as manifests describe it.
#[derive(Debug, Deserialize)]
struct FileEntry {
    path: String,
    bytes: u64,
    sha256: String,
}

/// `pagebert site`.
pub fn run(args: &SiteArgs, console: &Console) -> Result<()> {
    let manifest = read_manifest(&args.bundle)?;
    let www = find_www(args.www.as_deref())?;
    let out = resolved(&args.out)?;
    check_replaceable(&out, args.force)?;

    let parent = out.parent().ok_or_else(|| {
        UsageError(format!("--out {}: a whole disk can't become a site", args.out.display()))
    })?;
    fs::create_dir_all(parent).with_context(|| format!("{} can't be made", parent.display()))?;
    // Beside SITE, so that putting it into place is one rename on one disk.
    let work = tempfile::Builder::new()
        .prefix(".pagebert-site-")
        .tempdir_in(parent)
        .with_context(|| format!("{} can't be written to", parent.display()))?;
    // Within, because a temporary folder itself is closed to other users, such as a web server's.
    let new = work.path().join("new");
    let mut site = Site { root: new.clone(), files: BTreeMap::new() };
    site.add_page(&www)?;
    site.add_bundle(&args.bundle, manifest, console)?;
    if args.precompress {
        site.add_twins(console)?;
    }
    site.write_list()?;

    if out.exists() {
        let old = work.path().join("old");
        rename(&out, &old)?;
        if let Err(error) = rename(&new, &out) {
            rename(&old, &out)?;
            return Err(error);
        }
    } else {
        rename(&new, &out)?;
    }
    if let Err(error) = work.close() {
        console.warn(format!("the former site could not be removed: {error}"));
    }
    report(&site.files, args, console);
    Ok(())
}

/// A site being put together.
struct Site {
    root: PathBuf,
    /// Every file by its path with slashes, and its size.
    files: BTreeMap<String, u64>,
}

impl Site {
    /// Copies the built page and checks its engines.
    fn add_page(&mut self, www: &Path) -> Result<()> {
        for path in files_below(www)? {
            let relative = slashed(path.strip_prefix(www)?);
            // A site can serve as the page of the next one; its model and its twins stay behind.
            let twin = relative.ends_with(compress::ENDING);
            if relative == LIST || relative.starts_with("model/") || twin {
                continue;
            }
            self.copy(&path, &relative, None, None)?;
        }
        let engine = www.join("engine.json");
        let text = fs::read_to_string(&engine).with_context(|| engine.display().to_string())?;
        let broken = || {
            format!(
                "{} is not as scripts/build-web writes it: build the page again",
                engine.display()
            )
        };
        let builds: Value = serde_json::from_str(&text).with_context(broken)?;
        let builds = builds["builds"].as_object().with_context(broken)?;
        for build in builds.values() {
            let bytes = build["bytes"].as_u64().with_context(broken)?;
            let sha256 = build["sha256"].as_str().with_context(broken)?;
            let wasm = build["wasm"].as_str().with_context(broken)?;
            plain_path(wasm).with_context(broken)?;
            let path = self.root.join(wasm);
            let (found_bytes, found_sha256) = measure(&path).with_context(|| {
                format!("{} names {wasm}, which can't be read", engine.display())
            })?;
            if (found_bytes, found_sha256.as_str()) != (bytes, sha256) {
                bail!(
                    "{wasm} of {} is not what engine.json describes: run scripts/build-web again",
                    www.display()
                );
            }
        }
        Ok(())
    }

    /// Copies the bundle's files under names that carry their hash, and the manifest that names them.
    fn add_bundle(&mut self, bundle: &Path, mut manifest: Value, console: &Console) -> Result<()> {
        let broken =
            || format!("{}/manifest.json is broken: export the bundle again", bundle.display());
        let files =
            manifest.get_mut("files").and_then(Value::as_object_mut).with_context(broken)?;
        if files.is_empty() {
            bail!(UsageError(broken()));
        }
        for (name, entry) in files {
            let file = FileEntry::deserialize(&*entry)
                .with_context(|| format!("file `{name}` of the manifest"))
                .with_context(broken)?;
            // Only names: a manifest from elsewhere must not reach outside its folder.
            if Path::new(&file.path).components().count() != 1 || plain_path(&file.path).is_err() {
                bail!(UsageError(format!("{}: `{}` is no plain file name", broken(), file.path)));
            }
            let hashed = hashed_name(&file.path, &file.sha256);
            let bar = console.bar(&file.path, file.bytes, Unit::Bytes);
            let from = bundle.join(&file.path);
            self.copy(&from, &format!("{MODEL}/{hashed}"), Some(&file), Some(&bar))?;
            entry["path"] = Value::String(hashed);
        }
        let mut text = serde_json::to_string_pretty(&manifest)?;
        text.push('\n');
        self.write(&format!("{MODEL}/manifest.json"), text.as_bytes())
    }

    /// Adds a smaller twin to each file where that saves something.
    fn add_twins(&mut self, console: &Console) -> Result<()> {
        let paths: Vec<String> = self.files.keys().cloned().collect();
        for relative in paths {
            if let Some(bytes) = compress::compress(&self.root.join(&relative), console)? {
                self.files.insert(relative + compress::ENDING, bytes);
            }
        }
        Ok(())
    }

    fn write_list(&mut self) -> Result<()> {
        let mut text = String::from("# Made by pagebert: the files of this site.\n");
        for path in self.files.keys() {
            text += &format!("{path}\n");
        }
        fs::write(self.root.join(LIST), text).with_context(|| format!("{LIST} can't be written"))
    }

    fn write(&mut self, relative: &str, bytes: &[u8]) -> Result<()> {
        let to = self.place(relative)?;
        fs::write(&to, bytes).with_context(|| format!("{} can't be written", to.display()))?;
        self.files.insert(relative.to_string(), bytes.len() as u64);
        Ok(())
    }

    /// Copies a file, checking it against its description if there is one.
    fn copy(
        &mut self,
        from: &Path,
        relative: &str,
        described: Option<&FileEntry>,
        bar: Option<&Bar>,
    ) -> Result<()> {
        let to = self.place(relative)?;
        let input = match fs::File::open(from) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && described.is_some() => {
                bail!(UsageError(format!(
                    "{} is missing, though the manifest names it: export the bundle again",
                    from.display()
                )));
            }
            other => other.with_context(|| format!("{} can't be read", from.display()))?,
        };
        let output =
            fs::File::create(&to).with_context(|| format!("{} can't be written", to.display()))?;
        let (bytes, sha256) = pour(input, output, bar)
            .with_context(|| format!("{} can't be copied to {}", from.display(), to.display()))?;
        if let Some(file) = described {
            let fault = if bytes != file.bytes {
                Some(format!("has {bytes} bytes where the manifest says {}", file.bytes))
            } else if !sha256.eq_ignore_ascii_case(&file.sha256) {
                Some(
                    "is not the file that the manifest describes (its SHA-256 differs)".to_string(),
                )
            } else {
                None
            };
            if let Some(fault) = fault {
                bail!(UsageError(format!(
                    "{} {fault}: copy or export the bundle again",
                    from.display()
                )));
            }
        }
        self.files.insert(relative.to_string(), bytes);
        Ok(())
    }

    fn place(&self, relative: &str) -> Result<PathBuf> {
        let to = self.root.join(relative);
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("{} can't be made", folder.display()))?;
        }
        Ok(to)
    }
}

/// Reads as much of the manifest as a site needs.
fn read_manifest(bundle: &Path) -> Result<Value> {
    let path = bundle.join("manifest.json");
    let text = fs::read_to_string(&path).map_err(|error| {
        let hint = if bundle.join("config.json").is_file() {
            ". It is a RUN: make a bundle of it with pagebert export"
        } else {
            ". Give the folder that pagebert export wrote"
        };
        UsageError(format!("{} is no bundle: {}: {error}{hint}", bundle.display(), path.display()))
    })?;
    let manifest: Value = serde_json::from_str(&text).map_err(|error| {
        UsageError(format!("{} is not JSON: {error}. Export the bundle again", path.display()))
    })?;
    if manifest["format"] != "pagebert-bundle" {
        bail!(UsageError(format!("{} is not a bundle's manifest", path.display())));
    }
    match manifest["version"].as_u64() {
        Some(VERSION) => Ok(manifest),
        Some(version) => Err(anyhow!(UsageError(format!(
            "{} has version {version} of the format and this pagebert knows version {VERSION}: use the \
             pagebert that wrote it, or export again",
            path.display()
        )))),
        None => Err(anyhow!(UsageError(format!("{} has no version", path.display())))),
    }
}

/// The built page: where the user says, or where it comes with the program.
fn find_www(given: Option<&Path>) -> Result<PathBuf> {
    let complete =
        |folder: &Path| folder.join("index.html").is_file() && folder.join("engine.json").is_file();
    if let Some(folder) = given {
        if complete(folder) {
            return Ok(folder.to_path_buf());
        }
        bail!(UsageError(format!(
            "--www {} (or PAGEBERT_WWW): no built page there (index.html, engine.json). Make one \
             with scripts/build-web, which writes target/www",
            folder.display()
        )));
    }
    let mut places = Vec::new();
    // Through a link in the PATH to where the program really is.
    if let Ok(program) = std::env::current_exe().and_then(fs::canonicalize)
        && let Some(folder) = program.parent()
    {
        // Unpacked; installed under a prefix; in a source tree's target/release.
        places.extend(["www", "../share/pagebert/www", "../www"].map(|place| folder.join(place)));
    }
    // For `cargo install --path trainer`, which takes the program out of the source tree.
    places.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/www"));
    places.into_iter().find(|place| complete(place)).ok_or_else(|| {
        anyhow!(UsageError(
            "the built page is missing. Make it with scripts/build-web, or say with --www where it is"
                .to_string()
        ))
    })
}

/// SITE may be replaced if it is empty, or if pagebert wrote every file in it.
fn check_replaceable(out: &Path, force: bool) -> Result<()> {
    if force || !out.exists() {
        return Ok(());
    }
    let shown = out.display();
    if !out.is_dir() {
        bail!(UsageError(format!("--out {shown} is a file: give a folder")));
    }
    let there = files_below(out)?;
    if there.is_empty() {
        return Ok(());
    }
    let Ok(list) = fs::read_to_string(out.join(LIST)) else {
        bail!(UsageError(format!(
            "{shown} holds files that pagebert did not write. Give another --out, or --force to \
             replace them all"
        )));
    };
    let ours: HashSet<&str> = list.lines().collect();
    for path in there {
        let relative = slashed(path.strip_prefix(out)?);
        if relative != LIST && !ours.contains(relative.as_str()) {
            bail!(UsageError(format!(
                "{shown} holds {relative}, which pagebert did not write. Move it away, or give \
                 --force to remove it"
            )));
        }
    }
    Ok(())
}

fn report(files: &BTreeMap<String, u64>, args: &SiteArgs, console: &Console) {
    let shown = args.out.display();
    for (path, bytes) in files {
        console.detail(format!("{bytes:>12}  {path}"));
    }
    let total: u64 = files.values().sum();
    console.note(format!("{shown}: {} files, {}", files.len(), human_bytes(total)));
    console.note(format!(
        "Look at it with: pagebert serve {shown}\n\
         To publish, copy the folder as it is to any web host or bucket and open its index.html. \
         Names with a hash never change and may be cached for good."
    ));
}

/// `model.safetensors` with a hash becomes `model-0123456789abcdef.safetensors`. A name that has the
/// hash already, from a site used as a bundle, stays.
fn hashed_name(name: &str, sha256: &str) -> String {
    let hash = sha256.get(..HASH_DIGITS).unwrap_or(sha256).to_ascii_lowercase();
    let (stem, ending) = match name.split_once('.') {
        Some((stem, ending)) => (stem, format!(".{ending}")),
        None => (name, String::new()),
    };
    if stem.ends_with(&format!("-{hash}")) {
        return name.to_string();
    }
    format!("{stem}-{hash}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_their_hash_once() {
        let hash = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        for (name, expected) in [
            ("model.safetensors", "model-0123456789abcdef.safetensors"),
            ("vocab", "vocab-0123456789abcdef"),
            ("model.int8.bin", "model-0123456789abcdef.int8.bin"),
            ("model-0123456789abcdef.safetensors", "model-0123456789abcdef.safetensors"),
        ] {
            assert_eq!(hashed_name(name, hash), expected);
        }
    }

    #[test]
    fn paths_stay_inside() {
        for path in ["model.safetensors", "wasm/simd.wasm"] {
            assert!(plain_path(path).is_ok(), "{path}");
        }
        for path in ["", "../x", "/etc/passwd", "a/../../x", r"..\x", "./x"] {
            assert!(plain_path(path).is_err(), "{path}");
        }
    }
}
