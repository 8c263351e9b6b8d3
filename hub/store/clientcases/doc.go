// Package clientcases holds the client-level integration cases of etcd 3.6
// (tests/integration, tests/integration/clientv3 and tests/common of its
// repository) as tests of the store's etcd API. The tests are our own; what they check is etcd's. Most
// run on the leader and on a follower: nobody should be able to tell.
//
// # Where each case is
//
// From clientv3/kv_test.go:
//
//	TestKVPutError                           TestKV/requests that are refused, TestLimits/bytes of a request
//	TestKVPutWithLease                       TestLease/a revoked lease takes its keys
//	TestKVPutWithIgnoreValue, …IgnoreLease   TestKV/what a put may leave as it is, requests that are refused
//	TestKVPutWithRequireLeader               TestWithoutQuorum
//	TestKVRange                              TestKV/ranges
//	TestKVGetErrConnClosed, NewAfterClose    TestClosedClient
//	TestKVDeleteRange                        TestKV/deleted ranges
//	TestKVCompact, TestKVCompactError        TestKV/compaction, physical compaction is waited for
//	TestKVGetRetry, TestKVPutFailGetRetry    TestCallsOutliveRestarts
//	TestKVGetStoppedServerAndClose, TestKVPutStoppedServerAndClose, TestKVPutAtMostOnce
//	                                         TestCallsOutliveRestarts
//	TestKVGetCancel                          TestKV/a cancelled call
//	TestKVLargeRequests                      TestLimits/bytes of a request, bytes of a response
//
// From clientv3/txn_test.go:
//
//	TestTxnError                             TestTxn/transactions that are refused
//	TestTxnWriteFail, TestTxnReadRetry       TestWithoutQuorum, TestCallsOutliveRestarts
//	TestTxnSuccess, TestTxnCompareRange      TestTxn/comparisons, comparisons of ranges
//	TestTxnNested                            TestTxn/nested transactions of the client
//
// From clientv3/watch_test.go and watch_fragment_test.go:
//
//	TestWatchMultiWatcher                    TestWatch/many of one stream, streams of their own
//	TestWatchRange, TestWatch                TestWatch/ranges and revisions, ranges that are refused
//	TestWatchReconnRequest, TestWatchReconnInit, TestWatchReconnRunning
//	                                         TestWatchReconnects/before it is made, while it runs
//	TestWatchCancelImmediate, TestWatchCancelInit, TestWatchCancelRunning
//	                                         TestWatch/cancelled at once, cancelled while it runs
//	TestWatchResumeAfterDisconnect           TestWatchReconnects/while it runs
//	TestWatchResumeCompacted, TestWatchCompactRevision
//	                                         TestWatchReconnects/compacted while it was cut off, TestWatch/a compacted revision
//	TestWatchWithProgressNotify, …NoEvent, TestConfigurableWatchProgressNotifyInterval
//	                                         TestWatch/progress is told by itself
//	TestWatchRequestProgress                 TestWatch/progress is told on request
//	TestWatchEventType                       TestWatch/what events say
//	TestWatchErrConnClosed, TestWatchAfterClose
//	                                         TestClosedClient, TestWatch/closed with its client
//	TestWatchWithRequireLeader               TestWithoutQuorum
//	TestWatchWithFilter                      TestWatch/filters
//	TestWatchWithCreatedNotification, …DropConn
//	                                         TestWatch/creation is told, TestWatchReconnects/creation is told once
//	TestWatchCancelOnServer                  TestWatch/cancelled on the server
//	TestWatchOverlapContextCancel, TestWatchOverlapDropConnContextCancel
//	                                         TestWatch/contexts that overlap, TestWatchReconnects/overlapping contexts
//	TestWatchCancelAndCloseClient            TestWatch/closed as it is cancelled
//	TestWatchStressResumeClose               TestWatchReconnects/two thousand
//	TestWatchCancelDisconnected              TestWatchReconnects/cancelled while it is cut off
//	TestWatchClose                           TestWatch/closed with its client
//	TestWatchFragment…                       TestWatch/fragments; hub/store.TestWatchFragmentsPrevKVAndFilters
//
// From clientv3/lease/lease_test.go:
//
//	TestLeaseNotFoundError, TestLeaseKeepAliveNotFound
//	                                         TestLease/requests that are refused, kept alive by a stream
//	TestLeaseGrant                           TestLease/granted with an ID of its own
//	TestLeaseRevoke                          TestLease/a revoked lease takes its keys
//	TestLeaseKeepAliveOnce, TestLeaseKeepAlive, TestLeaseKeepAliveSeconds
//	                                         TestLease/kept alive once, kept alive by a stream
//	TestLeaseGrantErrConnClosed, …NewAfterClose, TestLeaseKeepAliveLoopExit
//	                                         TestClosedClient
//	TestLeaseKeepAliveCloseAfterDisconnectRevoke, …InitTimeout, …TTLTimeout
//	                                         TestLeaseEnds/together/the end of what is kept alive
//	TestLeaseTimeToLive, TestLeaseTimeToLiveLeaseNotFound
//	                                         TestLease/time to live
//	TestLeaseLeases                          TestLease/the list
//	TestLeaseRenewLostQuorum, TestLeaseWithRequireLeader
//	                                         TestWithoutQuorum
//	TestV3LeaseFailureOverlap                TestLease/many at once, TestRecipes/sessions
//	TestLeaseKeepAliveFullResponseQueue      not here: it is the client's own queue
//	TestLeaseKeepAliveHandleFailure          not here: etcd itself skips it
//
// From clientv3/lease/leasing_test.go (41 cases of the client's cache):
//
//	the reading, writing and invalidating ones
//	                                         TestRecipes/keys that a client leases
//	the rest                                 not here: they check the cache's own decisions; what it asks of the server is
//	                                         transactions, watches and sessions, which the cases above cover
//
// From clientv3/maintenance_test.go and snapshot/:
//
//	TestMaintenanceHashKV, TestCompactionHash
//	                                         TestMaintenance/members have the same hash, hash, hash of the past
//	TestMaintenanceMoveLeader                TestMaintenance/the leader is moved
//	TestMaintenanceSnapshotCancel, …ErrorInflight, …Timeout
//	                                         TestMaintenance/a snapshot that is cancelled, a snapshot that takes long
//	TestMaintenanceSnapshotContentDigest, …WithVersionVersion
//	                                         TestMaintenance/a snapshot holds the state
//	TestMaintenanceStatus                    TestMaintenance/status
//	TestSaveSnapshotFilePermissions, TestSaveSnapshotVersion
//	                                         TestMaintenance/a snapshot in a file
//
// From the rest of clientv3:
//
//	TestDetectKvOrderViolation, TestDetectTxnOrderViolation, TestEndpointSwitchResolvesViolation,
//	TestUnresolvableOrderViolation           TestOrdering
//	TestMemberList                           TestMaintenance/the members
//	TestMirrorSync, TestMirrorSyncBase       TestRecipes/a mirror
//	TestNamespacePutGet, TestNamespaceWatch  TestRecipes/names under a prefix
//	concurrency/ sessions, election, STM     TestRecipes/sessions, an election, transactional memory
//	concurrency/ mutex                       TestRecipes/a mutex, TestCoordination/a mutex whose next in line is gone
//	concurrency/ revision                    TestRevisionsOnlyGrow; hub/store.TestHistoriesAreLinearizable
//	experimental/recipes/ TestMutex…         TestRecipes/a mutex, TestCoordination/a mutex whose next in line is gone
//	experimental/recipes/ TestRWMutex…       TestCoordination/a mutex of readers and writers
//	experimental/recipes/ TestBarrier…       TestCoordination/a barrier
//	experimental/recipes/ TestDoubleBarrier… TestCoordination/a double barrier
//	experimental/recipes/ TestQueue…, TestPrQueue…
//	                                         TestCoordination/a queue, a queue of many, a queue by priority
//	naming/ endpoints                        TestRecipes/names of endpoints and their ends, names that come and go together
//	naming/ resolver                         not here: all that it asks of the server is what endpoints do
//	connectivity/ dial                       TestLimits/certificates of the others, TestOrdering (SetEndpoints)
//	connectivity/ TestBalancerUnderNetworkPartition…, TestDropReadUnderNetworkPartition
//	                                         TestPartition
//	connectivity/ shutdown                   TestCallsOutliveRestarts, TestRevisionsOnlyGrow;
//	                                         hub/store.TestWatchIsOrderedAndCompleteAcrossRestarts
//
// From v3_grpc_test.go, v3_kv_test.go and v3_grpc_inflight_test.go:
//
//	TestV3PutOverwrite                       TestKV/versions of a key
//	TestV3PutRestart                         TestCallsOutliveRestarts
//	TestV3CompactCurrentRev                  TestKV/compaction
//	TestV3HashKV, TestV3Hash, TestV3HashRestart
//	                                         TestMaintenance/hash, members have the same hash
//	TestV3TxnTooManyOps, TestV3TxnDuplicateKeys, TestV3TxnInvalidRange, TestV3PutMissingLease
//	                                         TestTxn/transactions that are refused, a failed check leaves nothing of the branches
//	TestV3TxnRevision                        TestTxn/revisions
//	TestV3TxnCmpHeaderRev                    TestTxn/a reading transaction agrees with its header
//	TestV3TxnRangeCompare                    TestTxn/comparisons of ranges
//	TestV3TxnNestedPath                      TestTxn/the path through nested transactions
//	TestV3PutIgnoreValue, TestV3PutIgnoreLease
//	                                         TestKV/what a put may leave as it is, requests that are refused
//	TestV3DeleteRange, TestV3RangeRequest    TestKV/deleted ranges, ranges
//	TestV3TooLargeRequest, TestV3LargeRequests, TestV3AdditionalGRPCOptions
//	                                         TestLimits/bytes of a request
//	TestGRPCRequireLeader, TestGRPCStreamRequireLeader
//	                                         TestWithoutQuorum
//	TestTLSGRPC…                             TestLimits/certificates of the others
//	TestKVWithEmptyValue                     TestKV/an empty value is a value
//	TestV3MaintenanceDefragmentInflightRange TestMaintenance/defragmentation
//	TestV3KVInflightRangeRequests            TestKV/many reads in flight
//
// From v3_lease_test.go:
//
//	TestV3LeasePromote, TestV3LeaseFailover, TestV3LeaseSwitch, TestV3LeaseTimeToLiveWithLeaderChanged
//	                                         TestLeaseEnds/survives a change of leader, TestLease/a key goes from one to another
//	TestV3LeaseRevoke, TestV3LeaseExpire     TestLease/a revoked lease takes its keys, TestLeaseEnds/together/one that is over takes its keys
//	TestV3LeaseGrantByID, TestV3LeaseNegativeID, TestV3LeaseExists
//	                                         TestLease/granted with an ID of its own, TestLeasesSurviveARestart
//	TestV3LeaseKeepAlive                     TestLease/kept alive by a stream
//	TestV3LeaseLeases                        TestLease/the list
//	TestV3Lease…Stress…                      TestLease/many at once
//	TestV3PutOnNonExistLease, TestV3GetNonExistLease
//	                                         TestLease/a key of a lease that does not live, time to live
//	TestV3LeaseRequireLeader                 TestWithoutQuorum
//	TestV3LeaseRecover…, RevokeAndRecover    TestLeasesSurviveARestart
//	TestV3LeaseCheckpoint                    TestLeaseCheckpoint
//
// From v3_watch_test.go and v3_watch_restore_test.go:
//
//	TestV3WatchFromCurrentRevision, TestV3WatchFutureRevision, TestV3WatchMultiple…, …Streams…
//	                                         TestWatch/ranges and revisions, many of one stream, streams of their own
//	TestV3WatchMultipleEventsTxn…            TestWatch/events of a transaction
//	TestV3WatchWrongRange                    TestWatch/identifiers of the client's own, ranges that are refused
//	TestV3WatchCancelSynced, …Unsynced       TestWatch/identifiers of the client's own, cancelled while it is behind
//	TestV3WatchCurrentPutOverlap             TestWatch/a write while it is made
//	TestV3WatchEmptyKey                      TestWatch/the whole key space
//	TestV3WatchProgressOnMemberRestart       TestWatch/progress is told by itself; hub/store.TestWatchIsOrdered…
//	TestV3WatchProgressWaitsForSync, …NoEvents
//	                                         TestWatch/progress waits for the backlog, progress is told on request
//	TestWatchWithProgressNotify              TestWatch/progress is told by itself
//	TestV3WatchClose                         TestWatchReconnects/a hundred raw streams
//	TestV3WatchWithFilter, TestV3WatchWithPrevKV
//	                                         TestWatch/filters, previous values
//	TestV3WatchCancellation, TestV3WatchCloseCancelRace
//	                                         TestWatch/cancelled on the server
//	TestV3WatchRestoreSnapshotUnsync         hub/store/snapshot_test.go
//	TestV3NoEventsLostOnCompact              not here: it needs a failpoint inside etcd's own send loop
//
// From the rest of tests/integration:
//
//	TestRevisionMonotonic…                   TestRevisionsOnlyGrow
//	TestMoveLeader…, TestConcurrentMoveLeader
//	                                         TestMaintenance/the leader is moved
//	network_partition_test, v3_failover_test hub/store/cluster_test.go, linearizability_test.go
//	v3_alarm_test, metrics_test              hub/store/space_test.go: space is watched on the disk, not by a quota
//	corrupt_test, hashkv_test                TestMaintenance/members have the same hash (members do not compare by themselves)
//
// From tests/common, which run the same cases over clientv3 and etcdctl (hub/store/etcdapi runs etcdctl itself):
//
//	alarm_test                               hub/store/space_test.go, TestMaintenance/alarms
//	compact_test                             TestKV/compaction, physical compaction is waited for
//	defrag_test                              TestMaintenance/defragmentation
//	endpoint_test, status_test, wait_leader_test
//	                                         TestMaintenance/status; hub/store/etcdapi.TestEtcdctlWorks
//	hashkv_test, corrupt_test                TestMaintenance/members have the same hash
//	kv_test                                  TestKV/ranges, deleted ranges, TestWithoutQuorum
//	lease_test                               TestLease, TestLeaseEnds
//	make_mirror_test                         TestRecipes/a mirror
//	move_leader_test                         TestMaintenance/the leader is moved; hub/store/etcdapi.TestEtcdctlMovesTheLeader
//	txn_test                                 TestTxn/comparisons, operations see those before them
//	watch_test                               TestWatch/ranges and revisions
//	watch_test, TestWatchDelay…              not here: they measure how late events are when large reads run beside them
//
// # What does not apply
//
//   - Users, roles and tokens (v3_auth, user_test, mirror_auth, every …Auth… case): identity is the certificate.
//   - Adding, removing, updating and promoting members and learners (cluster_test, member_test, TestMember…, …Learner…):
//     the hub has its own membership operations. TestMaintenance/what is not for clients checks that etcd's are refused.
//   - Downgrades, storage versions of the write-ahead log, v2store, force-new-cluster, discovery, embed, and the cases of
//     etcd's own Raft log and snapshots (raft_log_snapshot_test, reproduce_raft_panic): the store's are hub/store's.
//   - The gRPC proxy and gateway, lock and election services (v3lock, v3election): the client's own lock and election
//     work (TestRecipes), the services are not served.
//   - Reloading and choosing TLS parameters (v3_tls_test, TestTLSReload…): hub/identity rotates certificates.
//   - The black-hole cases of connectivity/: they measure grpc-go's keepalive in the client, at 10 s and more each. The
//     server's side of it, that it refuses pings that come too often, is TestLimits/pings that come too often.
//   - Tracing, metrics of the client, TestAuthority.
//
// # Where the store differs from etcd
//
//   - Without a leader a write fails with "etcdserver: no leader" where etcd says "request timed out": it surely was not
//     proposed. Both are Unavailable, and clients treat them alike.
//   - A stream that requires a leader waits for LeaderLoss before it is refused; etcd refuses at once.
//   - Clients may ping without a stream; etcd refuses that after two.
//   - The status names no quota (dbSizeQuota is 0): there is none.
//   - Pending events of a watch with fragments are fragmented too; etcd sends those in one piece.
//   - The only alarm is NOSPACE, of the member that is asked; it cannot be set or disarmed.
package clientcases
