package evidence

// Where the hub keeps evidence: in its own store, so that it is in every center
// and can be read where a recovery ended.
const (
	Namespace = "tripod-system"
	// ConfigMapKey holds a run's chain as Encode writes it.
	ConfigMapKey = "records.jsonl"
	// KeyConfigMap publishes the public key (PEM, PKIX) that verifies heads.
	KeyConfigMap    = "evidence-key"
	KeyConfigMapKey = "public.pem"
)

// ConfigMap is the name of the ConfigMap with the chain of a run.
func ConfigMap(run string) string { return "evidence-" + run }
