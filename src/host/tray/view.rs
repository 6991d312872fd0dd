//! One icon with its menu on the screen, kept equal to a [`Tray`].

use tray_icon::menu::{IsMenuItem, Menu, MenuItem, PredefinedMenuItem, Submenu};
use tray_icon::{Icon as Picture, TrayIcon, TrayIconBuilder};

use crate::tray::{Icon, Row, Tray, have_same_shape, pixels};

/// The icon's side in pixels: twice what most panels show, so that halving it stays crisp.
const SIZE: u32 = 48;

/// An icon on the screen.
pub(super) struct View {
    icon: TrayIcon,
    shown: Tray,
    rows: Vec<Shown>,
}

/// A row on the screen, as far as its text can change.
enum Shown {
    Separator,
    Item(MenuItem),
    Submenu(Submenu, Vec<Shown>),
}

impl View {
    /// Puts an icon on the screen.
    pub(super) fn new(tray: &Tray) -> Result<View, String> {
        let (menu, rows) = menu(&tray.rows)?;
        let icon = TrayIconBuilder::new()
            .with_id("fitwatch")
            .with_title(title())
            .with_tooltip(&tray.tooltip)
            .with_menu(Box::new(menu));
        let icon = with_picture(icon, picture(tray.icon)?).build().map_err(|error| error.to_string())?;
        Ok(View { icon, shown: tray.clone(), rows })
    }

    /// Makes the screen equal to a tray: what is equal already is left alone, changed texts are
    /// set in place, and only a menu of another shape is replaced (which closes it on some desktops).
    pub(super) fn show(&mut self, tray: &Tray) -> Result<(), String> {
        if self.shown.icon != tray.icon {
            set_picture(&self.icon, picture(tray.icon)?).map_err(|error| error.to_string())?;
        }
        if self.shown.tooltip != tray.tooltip {
            self.icon.set_tooltip(Some(&tray.tooltip)).map_err(|error| error.to_string())?;
        }
        if have_same_shape(&self.shown.rows, &tray.rows) {
            update(&self.rows, &self.shown.rows, &tray.rows);
        } else {
            let (menu, rows) = menu(&tray.rows)?;
            self.icon.set_menu(Some(Box::new(menu)));
            self.rows = rows;
        }
        self.shown = tray.clone();
        Ok(())
    }
}

/// Returns the title. On macOS it would stand beside the icon in the menu bar.
const fn title() -> &'static str {
    if cfg!(target_os = "macos") { "" } else { "fitwatch" }
}

/// macOS recolours a template by its alpha alone: the shapes are made for that.
#[cfg(target_os = "macos")]
fn with_picture(icon: TrayIconBuilder, picture: Picture) -> TrayIconBuilder {
    icon.with_icon_templated(picture)
}

#[cfg(not(target_os = "macos"))]
fn with_picture(icon: TrayIconBuilder, picture: Picture) -> TrayIconBuilder {
    icon.with_icon(picture)
}

#[cfg(target_os = "macos")]
fn set_picture(icon: &TrayIcon, picture: Picture) -> tray_icon::Result<()> {
    icon.set_icon_templated(Some(picture))
}

#[cfg(not(target_os = "macos"))]
fn set_picture(icon: &TrayIcon, picture: Picture) -> tray_icon::Result<()> {
    icon.set_icon(Some(picture))
}

fn picture(icon: Icon) -> Result<Picture, String> {
    Picture::from_rgba(pixels(icon, SIZE), SIZE, SIZE).map_err(|error| error.to_string())
}

/// Builds a menu.
fn menu(rows: &[Row]) -> Result<(Menu, Vec<Shown>), String> {
    let menu = Menu::new();
    let shown = fill(rows, &mut |item| menu.append(item).map_err(|error| error.to_string()))?;
    Ok((menu, shown))
}

/// Builds rows and hands each to `append`.
fn fill(rows: &[Row], append: &mut dyn FnMut(&dyn IsMenuItem) -> Result<(), String>) -> Result<Vec<Shown>, String> {
    let mut shown = Vec::new();
    for row in rows {
        shown.push(match row {
            Row::Separator => {
                append(&PredefinedMenuItem::separator())?;
                Shown::Separator
            }
            Row::Text(text) => {
                let item = MenuItem::new(label(text), false, None);
                append(&item)?;
                Shown::Item(item)
            }
            Row::Item { text, action } => {
                let item = MenuItem::with_id(action.to_text(), label(text), true, None);
                append(&item)?;
                Shown::Item(item)
            }
            Row::Submenu { text, rows } => {
                let submenu = Submenu::new(label(text), true);
                let rows = fill(rows, &mut |item| submenu.append(item).map_err(|error| error.to_string()))?;
                append(&submenu)?;
                Shown::Submenu(submenu, rows)
            }
        });
    }
    Ok(shown)
}

/// Sets the texts that differ between two menus of one shape.
fn update(shown: &[Shown], before: &[Row], after: &[Row]) {
    for ((shown, before), after) in shown.iter().zip(before).zip(after) {
        match (shown, before, after) {
            (Shown::Item(item), Row::Text(before), Row::Text(after))
            | (Shown::Item(item), Row::Item { text: before, .. }, Row::Item { text: after, .. })
                if before != after =>
            {
                item.set_text(label(after));
            }
            (
                Shown::Submenu(submenu, shown),
                Row::Submenu { text: before, rows },
                Row::Submenu { text: after, rows: changed },
            ) => {
                if before != after {
                    submenu.set_text(label(after));
                }
                update(shown, rows, changed);
            }
            _ => {}
        }
    }
}

/// Escapes what menus read as the mark of a shortcut key.
fn label(text: &str) -> String {
    text.replace('&', "&&")
}
