mod api;
mod contents;
mod durable;
mod failures;
mod histories;
mod protocol;
mod world;
