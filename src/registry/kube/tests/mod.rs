mod api;
mod histories;
mod protocol;
