//! The session bus: who owns a name on it, told without asking twice.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::timeout;
use zbus::export::futures_core::Stream;
use zbus::fdo::DBusProxy;
use zbus::message::Type;
use zbus::names::BusName;
use zbus::{Connection, MatchRule, MessageStream};

/// How long anyone on the bus may take to answer. A bus that drops replies would hold us for ever.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

/// Follows one name on the session bus.
pub(super) struct NameWatch {
    connection: Connection,
    name: &'static str,
    changes: MessageStream,
}

impl NameWatch {
    /// Connects to the session bus and listens; `Err` says why there is no bus.
    pub(super) async fn start(name: &'static str) -> Result<NameWatch, String> {
        let watch = async {
            let connection = Connection::session().await?;
            let rule = MatchRule::builder()
                .msg_type(Type::Signal)
                .sender("org.freedesktop.DBus")
                .interface("org.freedesktop.DBus")
                .member("NameOwnerChanged")
                .arg(0, name)
                .build()?;
            let changes = MessageStream::for_match_rule(rule, &connection, None).await?;
            Ok::<NameWatch, zbus::Error>(NameWatch { connection, name, changes })
        };
        match timeout(ANSWER, watch).await {
            Ok(Ok(watch)) => Ok(watch),
            Ok(Err(error)) => Err(format!("no session bus: {error}")),
            Err(_) => Err("the session bus does not answer".into()),
        }
    }

    /// Returns the connection.
    #[cfg(feature = "tray")]
    pub(super) const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Returns whether somebody owns the name.
    pub(super) async fn is_owned(&self) -> bool {
        let owned = async {
            let bus = DBusProxy::new(&self.connection).await.ok()?;
            bus.name_has_owner(BusName::try_from(self.name).ok()?).await.ok()
        };
        timeout(ANSWER, owned).await.ok().flatten().unwrap_or(false)
    }

    /// Returns whether the bus would start an owner of the name when one is needed.
    pub(super) async fn is_activatable(&self) -> bool {
        let names = async {
            let bus = DBusProxy::new(&self.connection).await.ok()?;
            bus.list_activatable_names().await.ok()
        };
        let names = timeout(ANSWER, names).await.ok().flatten().unwrap_or_default();
        names.iter().any(|name| name.as_str() == self.name)
    }

    /// Waits until the name changes hands; `false` once the bus is gone.
    pub(super) async fn changed(&mut self) -> bool {
        matches!(next(&mut self.changes).await, Some(Ok(_)))
    }
}

/// Waits for a stream's next message.
pub(super) async fn next(stream: &mut MessageStream) -> Option<zbus::Result<zbus::Message>> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}
