package bugs

// All are the bugs that the suite must find.
var All = []Bug{
	{
		Name: "the leader answers reads without asking a majority", File: "hub/store/read.go",
		Old:   "\tfor {\n\t\tif err := r.queue.answer(ctx,",
		New:   "\tif since.IsZero() {\n\t\treturn 0, false\n\t}\n\tif len(servers) > 0 {\n\t\treturn r.visible(commit), true\n\t}\n\tfor {\n\t\tif err := r.queue.answer(ctx,",
		Under: []string{"pause leader", "pause leader and cut"},
	}, {
		Name: "linearizable reads are answered from the local state", File: "hub/store/etcdapi/kv.go",
		Old: "if !r.Serializable {", New: "if false {",
	}, {
		Name: "a read does not wait until what it must see is applied", File: "hub/store/read.go",
		Old: "if err := r.machine.waitApplied(ctx, index); err != nil {",
		New: "if err := ctx.Err(); err != nil && index > 0 {",
	}, {
		Name: "what the log holds at a restart is not applied", File: "hub/store/apply.go",
		Old:   "replayed := entry.Index <= s.index.ConsistentIndex()",
		New:   "replayed := entry.Index <= max(s.index.ConsistentIndex(), s.replayed)",
		Under: []string{"kill follower", "kill leader", "kill all"},
	}, {
		Name: "what the log holds at a restart is applied again", File: "hub/store/apply.go",
		Old:   "replayed := entry.Index <= s.index.ConsistentIndex()",
		New:   "replayed := false",
		Under: []string{"kill follower", "kill leader", "kill all"},
	}, {
		Name: "a snapshot claims an entry that it does not hold", File: "hub/store/snapshot.go",
		Old:   "\ts.advanced(s.index.ConsistentIndex())\n\ts.metrics.restores",
		New:   "\ts.index.SetConsistentIndex(s.index.ConsistentIndex()+1, 1)\n\ts.advanced(s.index.ConsistentIndex())\n\ts.metrics.restores",
		Under: []string{"follower falls behind"},
	}, {
		Name: "a write of unknown outcome is proposed again", File: "hub/store/propose.go",
		Old: "if proposed || !retriable(err) {", New: "if !retriable(err) && !errors.Is(err, ErrOutcomeUnknown) {",
		Under: []string{"cut leader", "kill leader", "pause leader"},
	}, {
		Name: "a put that failed is acknowledged", File: "hub/store/etcdapi/kv.go",
		Old:   "store.Put(r))\n\tif err != nil {\n\t\treturn nil, err\n\t}",
		New:   "store.Put(r))\n\tif err != nil {\n\t\treturn &pb.PutResponse{Header: s.header.new(0)}, nil\n\t}",
		Under: []string{"cut leader", "kill leader", "kill majority"},
	}, {
		Name: "transactions do not look at what they expect", File: "hub/store/apply.go",
		Old: "resp, _, err := txn.Txn(", New: "r.Compare = nil\n\t\t\tresp, _, err := txn.Txn(",
	}, {
		Name: "a watch begins one revision late", File: "hub/store/etcdapi/watch.go",
		Old: "\tkey, end := watchRange(r)\n", New: "\tkey, end := watchRange(r)\n\tif r.StartRevision > 1 {\n\t\tr.StartRevision++\n\t}\n",
	}, {
		Name: "a response of a watch is sent twice now and then", File: "hub/store/etcdapi/watchsender.go",
		Old: "\tif err := sendFragments(", New: "\tif resp.Header.Revision%64 == 0 {\n\t\t_ = s.stream.grpc.Send(resp)\n\t}\n\tif err := sendFragments(",
	}, {
		Name: "the last of many events is lost", File: "hub/store/etcdapi/watchsender.go",
		Old: "\tmvcc.ReportEventReceived(len(resp.Events))\n\tcfg :=",
		New: "\tif n := len(resp.Events); n > 5 {\n\t\tresp.Events = resp.Events[:n-1]\n\t}\n\tcfg :=",
	}, {
		Name: "progress is told that has not been made", File: "hub/store/etcdapi/watchsender.go",
		Old: "\t// A progress notification", New: "\tif len(out.Events) == 0 && !out.Canceled {\n\t\tout.Header.Revision++\n\t}\n\t// A progress notification",
	}, {
		Name: "a compaction forgets one revision more", File: "hub/store/apply.go",
		Old: "s.kv.Compact(traceutil.TODO(), revision)", New: "s.kv.Compact(traceutil.TODO(), revision+1)",
	}, {
		Name: "a lease ends at half its time", File: "hub/store/apply.go",
		Old: "r.TTL)\n\t\t\tif err != nil {\n\t\t\t\treturn nil, err\n\t\t\t}\n\t\t\treturn &pb.LeaseGrantResponse{Header: s.header(), ID: int64(l.ID), TTL: l.TTL()}",
		New: "r.TTL/2)\n\t\t\tif err != nil {\n\t\t\t\treturn nil, err\n\t\t\t}\n\t\t\treturn &pb.LeaseGrantResponse{Header: s.header(), ID: int64(l.ID), TTL: r.TTL}",
	}, {
		Name: "a renewal is answered and not done", File: "hub/store/leases.go",
		Old: "ttl, err = l.machine.lessor.Renew(lease.LeaseID(id))",
		New: "if found := l.machine.lessor.Lookup(lease.LeaseID(id)); found != nil {\n\t\tttl, err = found.TTL(), nil\n\t} else {\n\t\terr = lease.ErrLeaseNotFound\n\t}",
	},
	{
		Name: "leases end by the wall clock", File: "hub/store/leases.go",
		Old: "func (l *Leases) run(ctx context.Context) {\n\tfor {\n\t\tselect {\n\t\tcase <-ctx.Done():\n\t\t\treturn\n",
		New: "func (l *Leases) run(ctx context.Context) {\n\tends := map[lease.LeaseID]time.Time{}\n\tfor {\n\t\tselect {\n\t\tcase <-ctx.Done():\n\t\t\treturn\n" +
			"\t\tcase <-time.After(50 * time.Millisecond):\n\t\t\tnow := time.Now().Round(0)\n\t\t\tfor _, e := range l.machine.lessor.Leases() {\n" +
			"\t\t\t\tif left := e.Remaining(); ends[e.ID].IsZero() || left > time.Duration(e.TTL())*time.Second-200*time.Millisecond {\n" +
			"\t\t\t\t\tends[e.ID] = now.Add(left)\n\t\t\t\t} else if now.After(ends[e.ID]) {\n\t\t\t\t\tl.revoke(ctx, e.ID)\n\t\t\t\t}\n\t\t\t}\n",
		Under: []string{"wall clocks jump"},
	},
	{
		Name: "the last entry of a batch is not applied", File: "hub/store/apply.go",
		Old:   "\t\tout[i] = s.applyEntry(entry)\n",
		New:   "\t\tif i > 5 && i == len(entries)-1 {\n\t\t\tout[i] = &Result{Index: entry.Index, Term: entry.Term}\n\t\t\tcontinue\n\t\t}\n\t\tout[i] = s.applyEntry(entry)\n",
		Under: []string{"kill follower", "cut follower", "pause follower"},
	}, {
		Name: "leases that a snapshot brings are forgotten", File: "hub/store/snapshot.go",
		Old:   "\ts.lessor.Recover(fresh, func() lease.TxnDelete { return s.kv.Write(traceutil.TODO()) })\n",
		New:   "\t_ = lease.NoLease\n\t_ = traceutil.TODO\n",
		Under: []string{"follower falls behind", "move leadership"},
	}, {
		Name: "votes and terms are not kept", File: "hub/store/guardedlog.go",
		Old: "\treturn g.WAL.Set(key,", New: "\tif len(key) > 0 {\n\t\treturn nil\n\t}\n\treturn g.WAL.Set(key,",
		Under: []string{"kill leader", "kill majority", "kill all"},
	},
}

// Upgrade are those that only a rolling upgrade shows.
var Upgrade = []Bug{
	{
		Name: "the level is raised although a member does not understand it", File: "hub/store/raise.go",
		Old: "case said.GetCommandVersion() < next:", New: "case said.GetCommandVersion() < 1:",
	}, {
		Name: "a leader writes what is above the level", File: "hub/store/command.go",
		Old: "op.fenced && level >= levelIncarnation &&", New: "op.fenced && level >= firstLevel &&",
	},
}
