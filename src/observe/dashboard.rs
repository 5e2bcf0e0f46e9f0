//! The state of balancers as JSON and as a page.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::response::{Html, IntoResponse, Json};
use axum::routing::get;

use super::Report;
use crate::balancer::Balancer;

/// A router that shows these balancers: `/` is one self-contained page that
/// refreshes itself each second, `/balancers.json` an array of [`Report`]s.
///
/// It says where a service's endpoints are: serve it to operators only.
///
/// ```no_run
/// # async fn example(users: waypost::Balancer) -> std::io::Result<()> {
/// let router = axum::Router::new().nest("/waypost", waypost::observe::dashboard([users]));
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:9090").await?;
/// axum::serve(listener, router).await
/// # }
/// ```
pub fn dashboard(balancers: impl IntoIterator<Item = Balancer>) -> Router {
    let balancers: Arc<[Balancer]> = balancers.into_iter().collect();
    Router::new()
        .route("/", get(page))
        .route("/balancers.json", get(reports))
        .with_state(balancers)
}

async fn page() -> Html<&'static str> {
    Html(include_str!("dashboard.html"))
}

async fn reports(State(balancers): State<Arc<[Balancer]>>) -> impl IntoResponse {
    let reports: Vec<Report> = balancers.iter().map(Report::of).collect();
    ([(CACHE_CONTROL, "no-store")], Json(reports))
}
