package evidence

import "fmt"

// Where the hub keeps evidence: in its own store, so that it is in every center
// and can be read where a recovery ended. The end of a chain is in its run's journal,
// written by the write that it accounts for, until it is archived.
const (
	Namespace = "tripod-system"
	// ConfigMapKey holds the archived beginning of a run's chain as Encode writes it.
	ConfigMapKey = "records.jsonl"
	// RunUID is the annotation that says whose the archive is: two runs may have had one
	// name, one after the other. An archive without it is of the run with its name.
	RunUID = "tripod.dev/run-uid"
	// KeyConfigMap publishes the public key (PEM, PKIX) that verifies heads.
	KeyConfigMap    = "evidence-key"
	KeyConfigMapKey = "public.pem"
)

// PartBytes is the size beyond which a ConfigMap is full, and the chain goes on in the next
// part: an object holds 1 MiB.
const PartBytes = 512 << 10

// Full is true for the text of a part behind which there may be another one.
func Full(text string) bool { return len(text) >= PartBytes }

// ConfigMap is the name of the ConfigMap with a part, from 1, of the archived chain of
// a run. There is a next part only if this one is full.
func ConfigMap(run string, part int) string {
	if part > 1 {
		return fmt.Sprintf("evidence-%s.part-%d", run, part)
	}
	return "evidence-" + run
}

// OfRun is true for the annotations of the archive of the run with that UID.
func OfRun(annotations map[string]string, uid string) bool {
	owner := annotations[RunUID]
	return owner == "" || owner == uid
}
