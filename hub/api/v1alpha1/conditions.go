package v1alpha1

// Condition types. Each has status True, False or Unknown, a reason in
// CamelCase and a message that names the object and the remedy.
const (
	// Cluster.
	ConditionReady      = "Ready"      // its API server and nodes serve
	ConditionLeased     = "Leased"     // it holds a lease now, by the leader's clock
	ConditionObservable = "Observable" // its agent can observe what it reports
	ConditionConnected  = "Connected"  // every member of the hub hears it

	// Placement.
	ConditionScheduled = "Scheduled"
	ConditionApplied   = "Applied"
	ConditionHealthy   = "Healthy"
	ConditionConflict  = "Conflict" // an older placement selects some of its templates

	// Dataset and Application.
	ConditionAvailable = "Available" // a primary serves
	ConditionProtected = "Protected" // the sync set or the replicas are as declared
)

// Labels and annotations.
const (
	// AnnotationCluster names the cluster an object of the view came from.
	AnnotationCluster = "tripod.dev/cluster"
	// LabelManagedBy marks an object in a member that an applier owns.
	LabelManagedBy = "tripod.dev/managed-by"
	// AnnotationRevision is the hub revision an applied object was rendered from.
	AnnotationRevision = "tripod.dev/revision"
	// AnnotationIncarnation is the hub incarnation an applied object came from.
	AnnotationIncarnation = "tripod.dev/incarnation"
	// FieldManager is the server-side-apply manager of every applier.
	FieldManager = "tripod"
	// NamespaceSystem holds what Tripod makes for itself: tombstones, in the hub;
	// the agent, in a cluster.
	NamespaceSystem = "tripod-system"
	// FinalizerPlaced holds a Placement until its tombstones are committed.
	FinalizerPlaced = "tripod.dev/placed"
)
