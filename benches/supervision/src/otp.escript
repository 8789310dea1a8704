#!/usr/bin/env escript
%% The workloads of main.rs on OTP's own supervisor: nanoseconds for all restarts, to start, to stop.
-mode(compile).

main([S, R, M]) ->
    logger:set_primary_config(level, none),
    process_flag(trap_exit, true),
    load_bench_sup(),
    [Supervisors, Restarts, Many] = [list_to_integer(N) || N <- [S, R, M]],
    restarts(2, Restarts),
    T = restarts(Supervisors, Restarts),
    Spec = spec(none, Many),
    T2 = erlang:monotonic_time(nanosecond),
    {ok, Sup2} = supervisor:start_link(bench_sup, Spec),
    T3 = erlang:monotonic_time(nanosecond),
    stop(Sup2),
    T4 = erlang:monotonic_time(nanosecond),
    io:format("~p ~p ~p~n", [T, T3 - T2, T4 - T3]).

restarts(0, _) -> 0;
restarts(Supervisors, Restarts) ->
    {ok, Sup} = supervisor:start_link(bench_sup, spec(self(), 1)),
    First = receive {ready, P} -> P end,
    T0 = erlang:monotonic_time(nanosecond),
    loop(First, Restarts),
    T1 = erlang:monotonic_time(nanosecond),
    stop(Sup),
    T1 - T0 + restarts(Supervisors - 1, Restarts).

loop(_, 0) -> ok;
loop(P, N) ->
    P ! stop,
    receive {ready, Q} -> loop(Q, N - 1) end.

spec(To, N) ->
    Child = fun(I) ->
        #{id => I, start => {erlang, apply, [fun() -> {ok, spawn_link(fun() -> life(To) end)} end, []]}}
    end,
    {#{intensity => 1000000, period => 1}, [Child(I) || I <- lists:seq(1, N)]}.

stop(Sup) ->
    Ref = monitor(process, Sup),
    exit(Sup, shutdown),
    receive {'DOWN', Ref, _, _, _} -> ok end.

life(none) -> receive stop -> ok end;
life(To) -> To ! {ready, self()}, receive stop -> ok end.

%% A callback module made on the spot: its init returns what it is given.
load_bench_sup() ->
    Forms = [{attribute, 1, module, bench_sup}, {attribute, 1, export, [{init, 1}]},
             {function, 1, init, 1, [{clause, 1, [{var, 1, 'S'}], [], [{tuple, 1, [{atom, 1, ok}, {var, 1, 'S'}]}]}]}],
    {ok, bench_sup, Bin} = compile:forms(Forms),
    {module, bench_sup} = code:load_binary(bench_sup, "bench_sup", Bin).
