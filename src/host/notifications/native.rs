//! macOS and Windows: the system's own notifications. They know no topics, so that a newer notice
//! stands beside an older one, and none can be taken back.

use std::sync::Arc;
use std::time::Duration;

use notify_rust::Notification;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::{Command, Queue, tell};
use crate::host::part::Part;

/// How long the system may take to show a notice.
const ANSWER: Duration = Duration::from_secs(5);

/// Shows what the queue says, for ever.
pub(super) async fn serve(queue: Arc<Queue>, mut part: Part) {
    loop {
        let Command::Show(notice) = queue.next().await else { continue };
        let shown = spawn_blocking(move || {
            Notification::new().appname("fitwatch").summary(&notice.title).body(&notice.body).show().map(drop)
        });
        tell(
            &mut part,
            match timeout(ANSWER, shown).await {
                Ok(Ok(Ok(()))) => Ok(()),
                Ok(Ok(Err(error))) => Err(format!("the notification was refused: {error}")),
                Ok(Err(error)) => Err(format!("the notification failed: {error}")),
                Err(_) => Err("the notification system does not answer".into()),
            },
        );
    }
}
