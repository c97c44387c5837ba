mod api;
mod protocol;
