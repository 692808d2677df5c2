//! Profiles: who somebody is on this machine. A folder each, named after the person, folded to lower case:
//!
//! - `key`: the private key, mode 0600; made once, never changed;
//! - `profile.toml`: the name, the cluster, and the ways in that were known at the last login;
//! - `token`: what has been seen, so that the next command sees no less; merged under `lock`, because commands of one
//!   person may run at the same time, and replaced as a whole, so that none reads a half;
//! - `history`: the prompt's.
//!
//! Beside the folders, `current` names the profile that is used unless `--as` says otherwise.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::cli::failure::Failure;
use crate::cli::output::{token_from_text, token_text};
use crate::id::{ProcessId, Token, UserName};

/// All profiles of this machine's user.
#[derive(Debug, Clone)]
pub(crate) struct Profiles {
    root: PathBuf,
}

/// One profile.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    folder: PathBuf,
    /// What `profile.toml` says.
    pub(crate) file: ProfileFile,
}

/// A profile as it was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// Its folder's name.
    pub(crate) name: UserName,
    /// What is in it, if that can be read.
    pub(crate) profile: Result<Profile, Failure>,
}

/// `profile.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProfileFile {
    /// The name, as it was written at the login.
    pub(crate) name: UserName,
    /// The cluster.
    pub(crate) cluster: String,
    /// The topology file of the login, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) topology: Option<PathBuf>,
    /// The director that answered last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) director: Option<ProcessId>,
    /// The ways in.
    #[serde(default, rename = "entrance")]
    pub(crate) entrances: Vec<EntranceRow>,
}

/// One way in, as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EntranceRow {
    /// The process.
    pub(crate) id: ProcessId,
    /// Its host.
    pub(crate) host: crate::id::HostId,
    /// Its address.
    pub(crate) addr: std::net::SocketAddr,
    /// What it is meant for.
    pub(crate) role: crate::topology::Role,
    /// Its public key, in hexadecimal.
    pub(crate) key: String,
}

fn trouble(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::failed(format!("{}: {error}", path.display())).hint("check the folder's owner, mode and free space")
}

/// Replaces a file as a whole, readable by its owner only.
fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        // A half that stays would be there for ever: the next attempt has another name.
        let _ = fs::remove_file(&temporary);
        trouble(path, &error)
    })
}

fn read(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(trouble(path, &error)),
    }
}

impl Profiles {
    /// Under GAGGLE_HOME, or the XDG data folder.
    pub(crate) fn open() -> Result<Self, Failure> {
        if let Some(home) = std::env::var_os("GAGGLE_HOME").filter(|home| !home.is_empty()) {
            return Ok(Self::at(home.into()));
        }
        let strategy = etcetera::base_strategy::Xdg::new().map_err(|_| {
            Failure::failed("no home folder is known, so there is no place for profiles")
                .hint("name one: set GAGGLE_HOME")
        })?;
        Ok(Self::at(strategy.data_dir().join("gaggle")))
    }

    /// Under this folder.
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    fn folder(&self, name: &UserName) -> PathBuf {
        self.root.join("profiles").join(name.folded())
    }

    /// The profile that `login` made last.
    pub(crate) fn current(&self) -> Result<Option<UserName>, Failure> {
        let path = self.root.join("current");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(trouble(&path, &error)),
        };
        // What names nobody is as good as nothing: the next login writes it anew.
        Ok(String::from_utf8_lossy(&bytes).trim().parse().ok())
    }

    /// Makes a profile the current one.
    pub(crate) fn set_current(&self, name: &UserName) -> Result<(), Failure> {
        replace(&self.root.join("current"), &format!("{}\n", name.folded()))
    }

    /// Leaves the current profile; tells which it was.
    pub(crate) fn clear_current(&self) -> Result<Option<UserName>, Failure> {
        let current = self.current()?;
        let path = self.root.join("current");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(trouble(&path, &error)),
            Ok(()) | Err(_) => Ok(current),
        }
    }

    /// The profiles that are there, by name; one that is broken does not hide the others.
    pub(crate) fn all(&self) -> Result<Vec<Found>, Failure> {
        let path = self.root.join("profiles");
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(trouble(&path, &error)),
        };
        let mut names: Vec<UserName> =
            entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        names.sort_unstable();
        // A folder without its profile.toml is a login under way, or one whose outcome is unknown.
        let found = |name: UserName| Some(Found { profile: self.find(&name).transpose()?, name });
        Ok(names.into_iter().filter_map(found).collect())
    }

    /// The profile of this name, if it is there.
    pub(crate) fn find(&self, name: &UserName) -> Result<Option<Profile>, Failure> {
        let folder = self.folder(name);
        let path = folder.join("profile.toml");
        let Some(text) = read(&path)? else { return Ok(None) };
        let file = toml::from_str(&text).map_err(|error| {
            Failure::usage(format!("{}: {}", path.display(), error.message()))
                .hint(format!("log in again, which keeps the key: gaggle login {name} --topology FILE"))
        })?;
        Ok(Some(Profile { folder, file }))
    }

    /// Begins a profile: its folder is there afterwards, `profile.toml` only after [`Profile::save`].
    pub(crate) fn begin(&self, file: ProfileFile) -> Result<Profile, Failure> {
        let folder = self.folder(&file.name);
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| trouble(&folder, &error))?;
        Ok(Profile { folder, file })
    }
}

impl Profile {
    /// Where the private key is.
    pub(crate) fn key_path(&self) -> PathBuf {
        self.folder.join("key")
    }

    /// Where the prompt keeps its history.
    pub(crate) fn history_path(&self) -> PathBuf {
        self.folder.join("history")
    }

    /// Writes `profile.toml`.
    pub(crate) fn save(&self) -> Result<(), Failure> {
        let path = self.folder.join("profile.toml");
        let text = toml::to_string_pretty(&self.file).map_err(|error| trouble(&path, &error))?;
        let _lock = self.lock()?;
        replace(&path, &text)
    }

    /// Whether its folder is there.
    pub(crate) fn is_there(&self) -> bool {
        self.folder.exists()
    }

    /// Takes the key away that was made for a name which belongs to another one.
    pub(crate) fn discard_key(&self) -> Result<(), Failure> {
        fs::remove_file(self.key_path()).map_err(|error| trouble(&self.key_path(), &error))
    }

    /// Takes a profile that was begun, and whose name was refused, away again.
    pub(crate) fn discard(&self) -> Result<(), Failure> {
        fs::remove_dir_all(&self.folder).map_err(|error| trouble(&self.folder, &error))
    }

    /// Held until it is dropped, also against other processes.
    fn lock(&self) -> Result<File, Failure> {
        let path = self.folder.join("lock");
        let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = open.map_err(|error| trouble(&path, &error))?;
        flock(&file, FlockOperation::LockExclusive).map_err(|error| trouble(&path, &error))?;
        Ok(file)
    }

    /// What has been seen.
    pub(crate) fn token(&self) -> Result<Token, Failure> {
        let path = self.folder.join("token");
        // An empty file is what a crash of the machine may leave: it promises nothing.
        let Some(text) = read(&path)?.filter(|text| !text.trim().is_empty()) else { return Ok(Token::default()) };
        token_from_text(&text).ok_or_else(|| {
            Failure::failed(format!("{} is damaged", path.display()))
                .hint("remove it; the next command may then show less than the last one did")
        })
    }

    /// Adds what was seen, by who had seen what it `began` with before, to what other commands have seen, and returns both.
    pub(crate) fn merge_token(&self, began: &Token, seen: &Token) -> Result<Token, Failure> {
        let _lock = self.lock()?;
        let before = self.token()?;
        let mut merged = before.clone();
        merged.supersede(began, seen);
        if merged != before {
            replace(&self.folder.join("token"), &token_text(&merged))?;
        }
        Ok(merged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Origin, Seq};
    use crate::time::Hlc;

    fn begin(profiles: &Profiles, name: &str) -> Profile {
        let file = ProfileFile {
            name: name.parse().unwrap(),
            cluster: "lenss".into(),
            topology: None,
            director: Some("M1".parse().unwrap()),
            entrances: vec![EntranceRow {
                id: "M1".parse().unwrap(),
                host: "lenss1".parse().unwrap(),
                addr: "127.0.0.1:6001".parse().unwrap(),
                role: crate::topology::Role::Master,
                key: "00".repeat(32),
            }],
        };
        profiles.begin(file).unwrap()
    }

    fn token(incarnation: u32, seq: u64) -> Token {
        let origin = Origin { host: "h".parse().unwrap(), incarnation };
        Token { vector: [(origin, Seq(seq))].into_iter().collect(), hlc: Hlc(seq) }
    }

    #[test]
    fn profiles_come_back_whatever_the_case() {
        let home = tempfile::tempdir().unwrap();
        let profiles = Profiles::at(home.path().join("home"));
        assert!(profiles.all().unwrap().is_empty() && profiles.current().unwrap().is_none());
        let profile = begin(&profiles, "Ann");
        assert!(profiles.all().unwrap().is_empty(), "begun is not yet there");
        profile.save().unwrap();
        profiles.set_current(&profile.file.name).unwrap();
        let found = profiles.find(&"ANN".parse().unwrap()).unwrap().unwrap();
        assert_eq!(found.file, profile.file);
        assert_eq!(profiles.current().unwrap(), Some("ann".parse().unwrap()));
        assert_eq!(profiles.clear_current().unwrap(), Some("ann".parse().unwrap()));
        assert_eq!(profiles.clear_current().unwrap(), None);
        fs::write(home.path().join("home/current"), [0xff, 0xfe]).unwrap();
        assert_eq!(profiles.current().unwrap(), None);
        profile.discard().unwrap();
        assert!(profiles.find(&"ann".parse().unwrap()).unwrap().is_none());
    }

    #[test]
    fn a_broken_profile_does_not_hide_the_others() {
        let home = tempfile::tempdir().unwrap();
        let profiles = Profiles::at(home.path().into());
        begin(&profiles, "ann").save().unwrap();
        let broken = begin(&profiles, "bob");
        fs::write(broken.folder.join("profile.toml"), "").unwrap();
        let found = profiles.all().unwrap();
        let whole: Vec<_> = found.iter().map(|found| (found.name.as_str(), found.profile.is_ok())).collect();
        assert_eq!(whole, [("ann", true), ("bob", false)]);
    }

    #[test]
    fn a_write_that_fails_leaves_nothing_behind() {
        let home = tempfile::tempdir().unwrap();
        let target = home.path().join("token");
        fs::create_dir(&target).unwrap();
        assert!(replace(&target, "x").is_err(), "a folder is not replaced");
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }

    #[test]
    fn commands_at_the_same_time_lose_nothing_of_the_token() {
        let home = tempfile::tempdir().unwrap();
        let profile = begin(&Profiles::at(home.path().into()), "ann");
        std::thread::scope(|scope| {
            for incarnation in 0..8 {
                let profile = profile.clone();
                scope.spawn(move || {
                    for seq in 1..=20 {
                        profile.merge_token(&Token::default(), &token(incarnation, seq)).unwrap();
                    }
                });
            }
        });
        let seen = profile.token().unwrap();
        assert_eq!(seen.vector.len(), 8);
        assert!((0..8).all(|incarnation| seen.vector.covers(&token(incarnation, 20).vector)));
        assert_eq!(seen.hlc, Hlc(20));
    }

    #[test]
    fn a_damaged_token_is_named_and_an_empty_one_is_none() {
        let home = tempfile::tempdir().unwrap();
        let profile = begin(&Profiles::at(home.path().into()), "ann");
        fs::write(profile.folder.join("token"), "").unwrap();
        assert_eq!(profile.token().unwrap(), Token::default());
        fs::write(profile.folder.join("token"), "%%%").unwrap();
        assert!(profile.token().unwrap_err().message.ends_with("token is damaged"));
    }
}
