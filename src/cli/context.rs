//! What every verb needs first: which cluster, which ways in, which person.

use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;

use crate::cli::args::Global;
use crate::cli::failure::{Failure, Kind};
use crate::cli::output::Out;
use crate::cli::profile::{EntranceRow, Profile, Profiles};
use crate::client::{CertBook, Identity};
use crate::id::{HostId, PublicKey, UserName};
use crate::topology::{ProcessSpec, Topology};

/// Used when nothing else is said and it is there.
const DEFAULT_TOPOLOGY: &str = "topology/lenss.toml";

/// The command's surroundings.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// The flags of all verbs.
    pub(crate) global: Global,
    /// How this command speaks.
    pub(crate) out: Out,
    /// The profiles of this machine.
    pub(crate) profiles: Profiles,
}

/// A topology file that was read.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What it says.
    pub(crate) topology: Topology,
}

impl Loaded {
    /// Reads and checks a file.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::usage(format!("{}: {error}", path.display())).hint("name a topology file: --topology FILE")
        })?;
        let name = path.file_name().map_or_else(|| path.to_string_lossy(), |name| name.to_string_lossy());
        let topology = Topology::parse(&text, &name).map_err(|error| {
            Failure::usage(error.to_string()).hint(format!(
                "correct {}, then try: gaggle config check {}",
                path.display(),
                path.display()
            ))
        })?;
        Ok(Self { path: path.to_owned(), topology })
    }

    /// The folder that the file's own folders are relative to.
    pub(crate) fn base(&self) -> PathBuf {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            Some(_) | None => PathBuf::from("."),
        }
    }

    /// Where the public identities are.
    pub(crate) fn certs(&self) -> PathBuf {
        self.base().join(&self.topology.certs)
    }

    /// The ways in whose keys are known by now.
    pub(crate) fn entrances(&self) -> Result<Vec<EntranceRow>, Failure> {
        let book = CertBook::load(&self.certs()).map_err(|error| Failure::identity(error.to_string()))?;
        let row = |process: &ProcessSpec| {
            let key = book.key(process.id)?;
            Some(EntranceRow {
                id: process.id,
                host: process.host,
                addr: process.addr,
                role: process.role,
                key: HEXLOWER.encode(&key.0),
            })
        };
        Ok(self.topology.processes().filter_map(row).collect())
    }
}

/// A cluster and the ways into it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The cluster's name.
    pub(crate) cluster: String,
    /// The file that says so; none if only the profile does.
    pub(crate) loaded: Option<Loaded>,
    /// The ways in; never empty.
    pub(crate) entrances: Vec<EntranceRow>,
}

impl EntranceRow {
    /// The key.
    pub(crate) fn public_key(&self) -> Option<PublicKey> {
        let bytes = HEXLOWER.decode(self.key.as_bytes()).ok()?;
        Some(PublicKey(bytes.try_into().ok()?))
    }
}

impl Context {
    /// The topology file, for verbs that need the file itself.
    pub(crate) fn topology(&self) -> Result<Loaded, Failure> {
        if let Some(path) = &self.global.topology {
            return Loaded::read(path);
        }
        let of_profile = self.profile_that_helps()?.and_then(|profile| profile.file.topology);
        if let Some(path) = of_profile.filter(|path| path.exists()) {
            return Loaded::read(&path);
        }
        if Path::new(DEFAULT_TOPOLOGY).exists() {
            return Loaded::read(Path::new(DEFAULT_TOPOLOGY));
        }
        Err(Failure::usage(format!("no topology file: {DEFAULT_TOPOLOGY} is not there, and none was named"))
            .hint("name one: --topology FILE, or GAGGLE_TOPOLOGY"))
    }

    /// The cluster that a verb without a profile talks to.
    pub(crate) fn place(&self) -> Result<Place, Failure> {
        let profile = self.profile_that_helps()?;
        let Some(path) = &self.global.topology else {
            return match profile {
                Some(profile) => self.place_of(&profile),
                None => Self::place_of_file(self.topology()?),
            };
        };
        // Whoever names a file means its cluster, whatever cluster the current profile is of.
        let loaded = Loaded::read(path)?;
        let same = profile.filter(|profile| profile.file.cluster == loaded.topology.cluster);
        Self::place_with(loaded, same.map(|profile| profile.file.entrances).unwrap_or_default())
    }

    /// The profile, if there is one, for verbs that need none: a current profile that is broken does not stop them.
    fn profile_that_helps(&self) -> Result<Option<Profile>, Failure> {
        match self.profile_if_any() {
            Err(_) if self.global.profile.is_none() => Ok(None),
            found => found,
        }
    }

    /// The cluster that this profile talks to. The file is newer than what the profile remembers, if it is still there.
    pub(crate) fn place_of(&self, profile: &Profile) -> Result<Place, Failure> {
        let remembered = profile.file.entrances.clone();
        let loaded = match (&self.global.topology, &profile.file.topology) {
            (Some(path), _) => Some(Loaded::read(path)?),
            (None, Some(path)) => Loaded::read(path).ok(),
            (None, None) => None,
        };
        let Some(loaded) = loaded else {
            if remembered.is_empty() {
                return Self::place_of_file(self.topology()?);
            }
            return Ok(Place { cluster: profile.file.cluster.clone(), loaded: None, entrances: remembered });
        };
        if loaded.topology.cluster != profile.file.cluster {
            if self.global.topology.is_none() {
                return Ok(Place { cluster: profile.file.cluster.clone(), loaded: None, entrances: remembered });
            }
            return Err(Failure::usage(format!(
                "the profile {} belongs to the cluster {}, and {} names {}",
                profile.file.name,
                profile.file.cluster,
                loaded.path.display(),
                loaded.topology.cluster
            ))
            .hint("use another profile (--as NAME), or another folder of profiles (GAGGLE_HOME)"));
        }
        Self::place_with(loaded, remembered)
    }

    /// The cluster of a topology file.
    pub(crate) fn place_of_file(loaded: Loaded) -> Result<Place, Failure> {
        Self::place_with(loaded, Vec::new())
    }

    /// The cluster of a topology file, whose ways in come before those that a profile remembers.
    fn place_with(loaded: Loaded, remembered: Vec<EntranceRow>) -> Result<Place, Failure> {
        let mut entrances = loaded.entrances()?;
        for row in remembered {
            if entrances.iter().all(|known| known.id != row.id) {
                entrances.push(row);
            }
        }
        if entrances.is_empty() {
            let certs = loaded.certs();
            return Err(Failure::new(
                Kind::Unreachable,
                format!("no process of {} has its public identity in {}", loaded.topology.cluster, certs.display()),
            )
            .hint(format!("start the cluster (gaggle up --topology {}), or copy *.pub there", loaded.path.display())));
        }
        Ok(Place { cluster: loaded.topology.cluster.clone(), loaded: Some(loaded), entrances })
    }

    /// The profile of `--as`, or the current one, if there is one.
    fn profile_if_any(&self) -> Result<Option<Profile>, Failure> {
        match &self.global.profile {
            Some(name) => self.profile_named(name).map(Some),
            None => match self.profiles.current()? {
                Some(name) => self.profiles.find(&name),
                None => Ok(None),
            },
        }
    }

    fn profile_named(&self, name: &UserName) -> Result<Profile, Failure> {
        self.profiles.find(name)?.ok_or_else(|| {
            Failure::usage(format!("there is no profile {name} on this machine"))
                .hint(format!("make it: gaggle login {name}"))
        })
    }

    /// The profile that this command speaks for.
    pub(crate) fn profile(&self) -> Result<Profile, Failure> {
        if let Some(profile) = self.profile_if_any()? {
            return Ok(profile);
        }
        Err(match self.profiles.current()? {
            Some(name) => Failure::usage(format!("the profile {name}, which was in use, is gone"))
                .hint(format!("make it anew (gaggle login {name}), or use another (gaggle profiles)")),
            None => Failure::usage("nobody is logged in on this machine").hint("log in first: gaggle login NAME"),
        })
    }

    /// The profile's key.
    pub(crate) fn identity(profile: &Profile) -> Result<Identity, Failure> {
        Ok(Identity::load(&profile.key_path())?)
    }

    /// Whether the host of `--via` is one of the place's.
    pub(crate) fn via(&self, place: &Place) -> Result<Option<HostId>, Failure> {
        let Some(via) = self.global.via else { return Ok(None) };
        let in_file = place.loaded.as_ref().is_some_and(|loaded| loaded.topology.host(via).is_some());
        if in_file || place.entrances.iter().any(|entrance| entrance.host == via) {
            return Ok(Some(via));
        }
        Err(Failure::usage(format!("the cluster {} has no host {via}", place.cluster))
            .hint("`gaggle status` shows the hosts"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Format;
    use crate::cli::profile::ProfileFile;

    fn row(id: &str) -> EntranceRow {
        EntranceRow {
            id: id.parse().unwrap(),
            host: "a".parse().unwrap(),
            addr: "127.0.0.1:7009".parse().unwrap(),
            role: crate::topology::Role::Worker,
            key: "00".repeat(32),
        }
    }

    /// A home whose current profile, of the cluster `other`, knows two ways in, and a topology file of `cluster`.
    fn context(home: &Path, cluster: &str) -> Context {
        let profiles = Profiles::at(home.join("home"));
        let name: UserName = "ann".parse().unwrap();
        let entrances = vec![row("A1"), row("A9")];
        let file =
            ProfileFile { name: name.clone(), cluster: "other".into(), topology: None, director: None, entrances };
        profiles.begin(file).unwrap().save().unwrap();
        profiles.set_current(&name).unwrap();
        let text = format!(
            "cluster = \"{cluster}\"\n[[host]]\nname = \"a\"\n[[host.process]]\nid = \"A1\"\nrole = \"worker\"\naddr = \"127.0.0.1:7001\"\n"
        );
        std::fs::write(home.join("t.toml"), text).unwrap();
        std::fs::create_dir_all(home.join("certs")).unwrap();
        std::fs::write(home.join("certs/A1.pub"), "00".repeat(32)).unwrap();
        let global = Global {
            topology: Some(home.join("t.toml")),
            profile: None,
            via: None,
            timeout: std::time::Duration::from_secs(1),
            json: false,
        };
        Context { global, out: Out::new(Format::Text), profiles }
    }

    fn ways(place: &Place) -> Vec<String> {
        place.entrances.iter().map(|row| format!("{} {}", row.id, row.addr.port())).collect()
    }

    #[test]
    fn whoever_names_a_file_needs_no_profile() {
        let home = tempfile::tempdir().unwrap();
        let context = context(home.path(), "mine");
        assert_eq!(ways(&context.place().unwrap()), ["A1 7001"]);
        assert_eq!(context.place_of(&context.profile().unwrap()).unwrap_err().kind, Kind::Usage);
        // Nor one that is whole.
        std::fs::write(home.path().join("home/profiles/ann/profile.toml"), "").unwrap();
        assert_eq!(ways(&context.place().unwrap()), ["A1 7001"]);
        assert!(context.profile().is_err());
    }

    #[test]
    fn the_file_and_the_profile_both_name_ways_in() {
        let home = tempfile::tempdir().unwrap();
        let context = context(home.path(), "other");
        assert_eq!(ways(&context.place().unwrap()), ["A1 7001", "A9 7009"]);
        assert_eq!(ways(&context.place_of(&context.profile().unwrap()).unwrap()), ["A1 7001", "A9 7009"]);
    }
}
