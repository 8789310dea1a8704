#!/usr/bin/env escript
%% The workloads of main.rs on OTP's own supervisor: nanoseconds a restart, to start, to stop.
main([R, M]) ->
    logger:set_primary_config(level, none),
    Self = self(),
    Restarts = list_to_integer(R),
    Many = list_to_integer(M),
    {ok, Sup} = start(Self, 1),
    First = receive {ready, P} -> P end,
    T0 = erlang:monotonic_time(nanosecond),
    loop(First, Restarts),
    T1 = erlang:monotonic_time(nanosecond),
    stop(Sup),
    T2 = erlang:monotonic_time(nanosecond),
    {ok, Sup2} = start(none, Many),
    T3 = erlang:monotonic_time(nanosecond),
    stop(Sup2),
    T4 = erlang:monotonic_time(nanosecond),
    io:format("~p ~p ~p~n", [(T1 - T0) div Restarts, T3 - T2, T4 - T3]).

loop(_, 0) -> ok;
loop(P, N) ->
    P ! stop,
    receive {ready, Q} -> loop(Q, N - 1) end.

start(To, N) ->
    Child = fun(I) ->
        #{id => I, start => {erlang, apply, [fun() -> {ok, spawn_link(fun() -> life(To) end)} end, []]}}
    end,
    Spec = {#{intensity => 1000000, period => 1}, [Child(I) || I <- lists:seq(1, N)]},
    supervisor:start_link({local, sup}, proplist_sup(Spec), Spec).

stop(Sup) ->
    process_flag(trap_exit, true),
    Ref = monitor(process, Sup),
    exit(Sup, shutdown),
    receive {'DOWN', Ref, _, _, _} -> ok end.

life(none) -> receive stop -> ok end;
life(To) -> To ! {ready, self()}, receive stop -> ok end.

%% A callback module made on the spot: its init returns what it is given.
proplist_sup(_) ->
    Forms = [{attribute, 1, module, bench_sup}, {attribute, 1, export, [{init, 1}]},
             {function, 1, init, 1, [{clause, 1, [{var, 1, 'S'}], [], [{tuple, 1, [{atom, 1, ok}, {var, 1, 'S'}]}]}]}],
    {ok, bench_sup, Bin} = compile:forms(Forms),
    {module, bench_sup} = code:load_binary(bench_sup, "bench_sup", Bin),
    bench_sup.
