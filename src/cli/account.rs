//! Who somebody is on this machine: `login`, `whoami`, `logout`, `profiles`.

use serde_json::json;

use crate::cli::context::{Context, Place};
use crate::cli::failure::{Failure, Kind};
use crate::cli::harmless::harmless;
use crate::cli::output::{Out, Paint};
use crate::cli::profile::ProfileFile;
use crate::cli::session::{Account, Person, Session};
use crate::client::Identity;
use crate::error::ErrorCode;
use crate::id::{UserId, UserName};

/// `login`: the profile is complete only when the cluster has taken the name.
pub(crate) async fn login(context: &Context, name: &UserName) -> Result<u8, Failure> {
    let existing = match context.profiles.find(name) {
        // Its key is what counts; the rest is written anew.
        Err(failure) if failure.kind == Kind::Usage => {
            context.out.notice("profile-broken", &format!("{}: written anew", failure.message));
            None
        }
        found => found?,
    };
    let place = match &existing {
        Some(profile) => context.place_of(profile)?,
        None => Context::place_of_file(context.topology()?)?,
    };
    let mut profile = match &existing {
        Some(profile) => profile.clone(),
        None => context.profiles.begin(describe(&place, name))?,
    };
    let key_was_there = profile.key_path().exists();
    let identity = Identity::load_or_make(&profile.key_path())?;
    let session = Session::open(context, &place, Person::Owner(identity, profile.clone())).await?;
    session.say_notices(context.out);
    let account = match session.login(name.clone()).await {
        Ok(account) => account,
        Err(failure) => {
            // A key that was made for a name that somebody else has is of no use. Any other failure leaves it: the
            // name may be registered for it already, and then only this key is let in.
            let refused = failure.kind == Kind::Refused(ErrorCode::NameTaken);
            match &existing {
                _ if !refused || key_was_there => {}
                None => profile.discard()?,
                Some(_) => profile.discard_key()?,
            }
            return Err(failure);
        }
    };
    profile.file = describe(&place, existing.as_ref().map_or(name, |existing| &existing.file.name));
    profile.file.director = session.director();
    profile.save()?;
    context.profiles.set_current(name)?;
    say_account(context.out, &account, "logged in as")?;
    session.close().await;
    Ok(0)
}

fn describe(place: &Place, name: &UserName) -> ProfileFile {
    let topology =
        place.loaded.as_ref().map(|loaded| std::fs::canonicalize(&loaded.path).unwrap_or(loaded.path.clone()));
    ProfileFile {
        name: name.clone(),
        cluster: place.cluster.clone(),
        topology,
        director: None,
        entrances: place.entrances.clone(),
    }
}

/// `whoami`.
pub(crate) async fn whoami(context: &Context, session: &Session) -> Result<u8, Failure> {
    let account = session.who_am_i().await?;
    say_account(context.out, &account, "you are")?;
    Ok(0)
}

fn say_account(out: Out, account: &Account, words: &str) -> Result<(), Failure> {
    let value = json!({
        "v": 1,
        "name": account.name,
        "user": account.user.to_string(),
        "host": account.host.map(|host| host.to_string()),
        "process": account.process.map(|process| process.to_string()),
    });
    let name = out.paint(Paint::Name, &harmless(&account.name));
    let place = match (account.host, account.process) {
        (Some(host), Some(process)) => format!(", served by {process} of {host}"),
        (Some(host), None) => format!(", served by {host}"),
        (None, _) => String::new(),
    };
    out.say(&value, &format!("{words} {name}{place}"))
}

/// `logout`.
pub(crate) fn logout(context: &Context) -> Result<u8, Failure> {
    let left = context.profiles.clear_current()?;
    let value = json!({"v": 1, "name": left.as_ref().map(UserName::as_str)});
    let text = match &left {
        Some(name) => format!("{name} is logged out; the key stays on this machine (gaggle login {name})"),
        None => "nobody was logged in".to_owned(),
    };
    context.out.say(&value, &text)?;
    Ok(0)
}

/// `profiles`.
pub(crate) fn profiles(context: &Context) -> Result<u8, Failure> {
    let current = context.profiles.current()?.map(|name| name.folded());
    let all = context.profiles.all()?;
    for found in &all {
        let profile = found.profile.as_ref().ok();
        let name = profile.map_or(&found.name, |profile| &profile.file.name);
        let is_current = current.as_deref() == Some(name.folded().as_str());
        // What cannot be read is shown as such: this is where people look for what is wrong.
        let user = found.profile.as_ref().map_err(Clone::clone).and_then(|profile| {
            Context::identity(profile).map(|identity| UserId::of(&identity.public_key()).to_string())
        });
        let cluster = profile.map(|profile| profile.file.cluster.as_str());
        let value = json!({"v": 1, "name": name.as_str(), "user": user.as_ref().ok(),
                           "cluster": cluster, "current": is_current});
        let mark = if is_current { "*" } else { " " };
        let shown = user.unwrap_or_else(|failure| failure.message);
        context.out.say(&value, &format!("{mark} {name}  {}  {}", cluster.unwrap_or("?"), harmless(&shown)))?;
    }
    if all.is_empty() && !context.out.is_json() {
        context.out.notice("no-profiles", "there is no profile on this machine yet: gaggle login NAME");
    }
    Ok(0)
}
