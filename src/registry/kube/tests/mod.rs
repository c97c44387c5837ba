mod api;
mod durable;
mod histories;
mod protocol;
