//! The output folder: whole, or recognisably not.
//!
//! Everything is written below `unfinished/` in it. When all is there and on disk, the files are moved to their places,
//! `correlate.json` last: a folder with that file in it is a complete output, and one without it is none. A lock keeps a
//! second process off, and ends with the process, however that ends.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{ErrorKind, Seek, Write},
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::error::Error;

/// The mark of a complete output, with what was asked for and what was found.
pub(crate) const MANIFEST: &str = "correlate.json";

/// Where an output is while it is no output yet.
const UNFINISHED: &str = "unfinished";

/// A folder that is being filled.
#[derive(Debug)]
pub(crate) struct Folder {
    dir: PathBuf,
    work: PathBuf,
    /// Files of an old output, to be removed when the new one is there.
    old: Vec<PathBuf>,
    /// Held until the end.
    _lock: File,
    /// The folder was not there before, and its output is not complete yet.
    is_ours_to_remove: bool,
}

impl Folder {
    /// Makes the folder if it is not there, and takes hold of it. Refuses to mix with an old output, unless that may be
    /// overwritten.
    pub(crate) fn open(dir: &Path, overwrite: bool) -> Result<Folder, Error> {
        let is_ours_to_remove = !dir.exists();
        fs::create_dir_all(dir).map_err(Error::file("make folder", dir))?;
        let old = outputs(dir)?;
        if let Some(first) = old.first().filter(|_| !overwrite) {
            let first = first.display();
            return Err(Error::Request(format!(
                "{first} is there already: name another --output, or say --overwrite"
            )));
        }
        let work = dir.join(UNFINISHED);
        fs::create_dir_all(&work).map_err(Error::file("make folder", &work))?;
        let path = work.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(Error::file("make", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let dir = dir.display();
                return Err(Error::Request(format!("another process is writing into {dir}")));
            }
            Err(TryLockError::Error(source)) => return Err(Error::File { verb: "lock", path, source }),
        }
        for entry in fs::read_dir(&work).map_err(Error::file("read folder", &work))? {
            let left_over = entry.map_err(Error::file("read folder", &work))?.path();
            if left_over != path {
                fs::remove_file(&left_over).map_err(Error::file("remove", &left_over))?;
            }
        }
        Ok(Folder { dir: dir.to_owned(), work, old, _lock: lock, is_ours_to_remove })
    }

    /// Makes files of these names, empty.
    pub(crate) fn files(&self, names: &[String]) -> Result<Files, Error> {
        let files = names.iter().map(|name| OpenFile::new(self.work.join(name))).collect::<Result<_, _>>()?;
        Ok(Files { files })
    }

    /// Declares the output complete.
    pub(crate) fn finish(mut self, files: Files, manifest: &Value) -> Result<(), Error> {
        let mut names = Vec::new();
        for file in files.files {
            file.file.sync_all().map_err(Error::file("write", &file.path))?;
            names.extend(file.path.file_name().map(ToOwned::to_owned));
        }
        let mut manifest = OpenFile::new(self.work.join(MANIFEST)).and_then(|mut file| {
            let text = format!("{manifest:#}\n");
            file.file.write_all(text.as_bytes()).map_err(Error::file("write", &file.path))?;
            file.file.sync_all().map_err(Error::file("write", &file.path))?;
            Ok(file)
        })?;
        // The old one stops being complete before anything of it is gone.
        self.old.sort_by_key(|path| path.file_name().is_none_or(|name| name != MANIFEST));
        for old in &self.old {
            fs::remove_file(old).map_err(Error::file("remove", old))?;
        }
        for name in names {
            let (from, to) = (self.work.join(&name), self.dir.join(&name));
            fs::rename(&from, &to).map_err(Error::file("make", &to))?;
        }
        self.sync();
        let to = self.dir.join(MANIFEST);
        fs::rename(&manifest.path, &to).map_err(Error::file("make", &to))?;
        manifest.path = to;
        self.sync();
        self.is_ours_to_remove = false;
        Ok(())
    }

    /// Asks for the moves themselves to be on disk, where folders can be asked.
    fn sync(&self) {
        let _ = File::open(&self.dir).and_then(|dir| dir.sync_all());
    }
}

impl Drop for Folder {
    /// What is unfinished goes, so that it takes no space and confuses nobody. If that fails it is still named as what
    /// it is.
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.work);
        if self.is_ours_to_remove {
            // Only succeeds if nothing else is in it.
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

/// The files of a complete or damaged output in a folder, by name.
pub(crate) fn outputs(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::file("read folder", dir))? {
        let path = entry.map_err(Error::file("read folder", dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_part = name.strip_prefix("part-").is_some_and(|rest| rest.ends_with(".ndjson"));
        if is_part || *name == *MANIFEST || crate::text::InFiles::EXTRAS.contains(&&*name) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The names of all files of an output, by number.
pub(crate) fn names(partitions: usize) -> Vec<String> {
    let digits = (partitions.max(2) - 1).to_string().len().max(2);
    let parts = (0..partitions).map(|n| format!("part-{n:0digits$}.ndjson"));
    parts.chain(crate::text::InFiles::EXTRAS.map(str::to_owned)).collect()
}

/// Files that are being written, each with a length that stays.
#[derive(Debug)]
pub(crate) struct Files {
    files: Vec<OpenFile>,
}

#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    file: File,
    /// What was written for good.
    kept: u64,
    /// What was written.
    written: u64,
}

impl OpenFile {
    fn new(path: PathBuf) -> Result<OpenFile, Error> {
        let file = OpenOptions::new().create_new(true).read(true).write(true).open(&path);
        let file = file.map_err(Error::file("make", &path))?;
        Ok(OpenFile { path, file, kept: 0, written: 0 })
    }
}

impl Files {
    /// Appends to a file.
    pub(crate) fn write(&mut self, file: usize, bytes: &[u8]) -> Result<(), Error> {
        let file = &mut self.files[file];
        // Counted first: if the write fails half-way, there may be something to take back.
        file.written += bytes.len() as u64;
        file.file.write_all(bytes).map_err(Error::file("write", &file.path))
    }

    /// What has been written stays.
    pub(crate) fn keep(&mut self) {
        self.files.iter_mut().for_each(|file| file.kept = file.written);
    }

    /// What has been written and not kept is gone.
    pub(crate) fn rewind(&mut self) -> Result<(), Error> {
        for file in self.files.iter_mut().filter(|file| file.written != file.kept) {
            let rewound = file
                .file
                .set_len(file.kept)
                .and_then(|()| file.file.seek(std::io::SeekFrom::Start(file.kept)));
            rewound.map_err(Error::file("write", &file.path))?;
            file.written = file.kept;
        }
        Ok(())
    }

    /// Removes them.
    pub(crate) fn remove(self) -> Result<(), Error> {
        self.files
            .iter()
            .try_for_each(|file| fs::remove_file(&file.path).map_err(Error::file("remove", &file.path)))
    }

    /// Opens a file again, to be read from its start.
    pub(crate) fn read(&self, file: usize) -> Result<File, Error> {
        let path = &self.files[file].path;
        File::open(path).map_err(Error::file("read", path))
    }
}

/// Whether two paths lead to the same folder; a path that leads nowhere is the same as none.
pub(crate) fn is_same(a: &Path, b: &Path) -> Result<bool, Error> {
    let real = |path: &Path| match path.canonicalize() {
        Ok(real) => Ok(Some(real)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read folder", path)(error)),
    };
    Ok(real(a)?.is_some_and(|a| real(b).is_ok_and(|b| b == Some(a))))
}
