//! The parts themselves work: a broker that keeps its data, a worker that runs jobs, a journal that tells of them.

use test_support::{Jobs, RabbitMq, Redis, RedisOptions, SampleApp, Signal, wait_until};

#[tokio::test]
async fn jobs_are_run_and_told_of() {
    let redis = Redis::start().await;
    let app = SampleApp::new(redis.url());
    let mut worker = app.worker("worker@one").concurrency(2).start().await;

    let ids = app.submit(Jobs::new(4).seconds(0.1, 0.3).seed(7)).await;
    app.journal().wait_finished(&ids).await;
    let tally = app.journal().tally(&ids);
    assert_eq!((tally.started.len(), tally.finished.len(), tally.run_twice.len()), (4, 4, 0));

    let told = app.submit(Jobs::with_ids(["told"]).until_told()).await;
    app.journal().wait_started(&told, 1).await;
    assert_eq!(app.journal().tally(&told).finished.len(), 0);
    app.tell(&told);
    app.journal().wait_finished(&told).await;

    let cut = app.submit(Jobs::with_ids(["cut"]).seconds(600.0, 600.0)).await;
    app.journal().wait_started(&cut, 1).await;
    worker.kill();
    assert_eq!(app.journal().tally(&cut).unfinished.len(), 1);
    assert_eq!(app.journal().records()["cut"].node, "worker@one");
}

#[tokio::test]
async fn a_redis_keeps_its_data_and_its_port() {
    let options = RedisOptions { password: Some("secret".into()), unix_socket: true, ..RedisOptions::default() };
    let mut redis = Redis::start_with(options).await;
    let port = redis.port();
    assert_eq!(redis.cli(&["SET", "key", "value"]), "OK");
    redis.restart().await;
    assert_eq!((redis.cli(&["GET", "key"]).as_str(), redis.port()), ("value", port));
    redis.kill();
    redis.restart().await;
    assert_eq!(redis.cli(&["GET", "key"]), "value");
    assert!(redis.unix_socket().unwrap().exists());
}

#[tokio::test]
async fn a_rabbitmq_keeps_its_data_and_its_port_and_leaves_nothing() {
    let mut rabbit = RabbitMq::start().await;
    let port = rabbit.port();
    rabbit.add_vhost("ours").await;
    rabbit.restart().await;
    assert!(rabbit.ctl(&["list_vhosts", "--quiet"]).await.contains("ours"));
    rabbit.kill();
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    rabbit.restart().await;
    assert_eq!(rabbit.port(), port);
    assert!(rabbit.ctl(&["list_vhosts", "--quiet"]).await.contains("ours"));

    // All that runs for it has its folder, or its ports, in its command line.
    let folder = rabbit.eval("os:getenv(\"HOME\").").await.trim_matches('"').to_owned();
    let epmd = rabbit.eval("os:getenv(\"ERL_EPMD_PORT\").").await.trim_matches('"').to_owned();
    let listed = || {
        let output = std::process::Command::new("ps").args(["-eo", "args"]).output().expect("ps runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let ours = |list: &str| list.contains(&folder) || (list.contains("epmd") && list.contains(&epmd));
    assert!(listed().lines().any(ours));
    drop(rabbit);
    wait_until("nothing of it runs", test_support::LONG, async || !listed().lines().any(ours)).await;
}

#[tokio::test]
async fn virtual_hosts_of_the_shared_rabbitmq_are_apart() {
    let (one, two) = (RabbitMq::shared().await, RabbitMq::shared().await);
    assert_eq!(one.rabbit().port(), two.rabbit().port());
    let app = SampleApp::new(one.url());
    let _worker = app.worker("worker@one").start().await;
    let jobs = app.submit(Jobs::new(2).seconds(0.0, 0.0)).await;
    app.journal().wait_finished(&jobs).await;
    assert!(one.queues().await.contains(&"celery".to_owned()));
    assert_eq!(two.queues().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_process_ends_with_its_guard_and_so_do_its_children() {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "sleep 600 & echo $!; wait"]);
    let process = test_support::Process::start("sh", &command);
    wait_until("it has printed", test_support::LONG, async || !process.log().is_empty()).await;
    let child = format!("/proc/{}/cmdline", process.log().trim());
    drop(process);
    // The child may be left to whoever adopts it as a zombie, whose command line is empty.
    let gone = || std::fs::read(&child).unwrap_or_default().is_empty();
    wait_until("the child is gone", test_support::LONG, async || gone()).await;
}

#[tokio::test]
async fn a_process_can_be_asked_to_end() {
    let mut command = std::process::Command::new("sleep");
    command.arg("600");
    let mut process = test_support::Process::start("sleep", &command);
    // setpriv needs a moment to put itself in order; a signal before that ends it all the same.
    process.signal(Signal::TERM);
    assert!(!process.ended(test_support::LONG).await.success());
}
