//! `pagebert site` and `pagebert serve`, as a user runs them.

mod rooms;
mod serve;
mod site;
