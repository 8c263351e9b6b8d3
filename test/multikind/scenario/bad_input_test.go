package scenario

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"tripod.dev/tripod/hub/api/jointoken"
)

// TestBadInput: each bad input is refused or reported with a message that names
// the object and the remedy, and nothing is lost or moved by it.
func TestBadInput(t *testing.T) {
	f := fleet(t)
	before, err := f.Dataset(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	placed, err := f.placedObjects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := business(t, f)
	t.Run("a placement that selects nothing", func(t *testing.T) { placementOfNothing(t, f) })
	t.Run("a dataset with an unknown driver", func(t *testing.T) { datasetOfNobody(t, f) })
	t.Run("a cluster name taken twice", func(t *testing.T) { nameTakenTwice(t, f) })
	t.Run("join tokens that are not good", func(t *testing.T) { badTokens(t, f) })
	t.Run("a hub member without the hub's token", func(t *testing.T) { memberWithoutToken(t, f) })
	t.Run("a hub member with another CA", func(t *testing.T) { memberOfAnotherHub(t, f) })

	if err := f.AwaitClusters(t.Context()); err != nil {
		t.Error(err)
	}
	if err := f.AwaitApplication(t.Context(), time.Minute); err != nil {
		t.Error(err)
	}
	if err := b.AwaitTransfers(t.Context(), 50, time.Minute); err != nil {
		t.Error(err)
	}
	if wrong, err := unmoved(f, before)(t.Context()); err != nil || wrong != "" {
		t.Errorf("bad input moved the ledger: %s %v", wrong, err)
	}
	nothingDeleted(t, f, placed)
	audit(t, b)
}

// says fails the test unless the text holds every one of wants.
func says(t *testing.T, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("the message does not say %q: %s", want, text)
		}
	}
}

func placementOfNothing(t *testing.T, f *Fleet) {
	t.Cleanup(func() { dropGuest(t, f, "hub") })
	must(t)(f.Kubectl(t.Context(), nil, "--context", "hub", "create", "namespace", guest))
	must(t)(f.Kubectl(t.Context(), strings.NewReader(`
apiVersion: tripod.dev/v1alpha1
kind: Placement
metadata: {name: empty, namespace: `+guest+`}
spec:
  resources:
  - {apiVersion: apps/v1, kind: Deployment, labelSelector: {matchLabels: {app: nowhere}}}
  clusters: {regions: [north]}
`), "--context", "hub", "apply", "--server-side", "-f", "-"))
	must(t)(f.Kubectl(t.Context(), nil, "--context", "hub", "-n", guest, "wait", "placement/empty", "--for", "condition=Scheduled=False", "--timeout", "20s"))
	message := must(t)(f.Kubectl(t.Context(), nil, "--context", "hub", "-n", guest, "get", "placement/empty",
		"-o", `jsonpath={.status.conditions[?(@.type=="Scheduled")].message}`))
	says(t, message, guest+"/empty", "Deployment", "app=nowhere", "create one there, or correct spec.resources")
}

func datasetOfNobody(t *testing.T, f *Fleet) {
	out, err := f.Kubectl(t.Context(), strings.NewReader(`
apiVersion: tripod.dev/v1alpha1
kind: Dataset
metadata: {name: strange, namespace: pay}
spec:
  driver: oracle
  protection: ZeroLoss
  members: [{cluster: north-1}, {cluster: north-2}]
`), "--context", "hub", "create", "-f", "-")
	if err == nil {
		t.Fatalf("the dataset was taken: %s", out)
	}
	says(t, err.Error(), "strange", `spec.driver "oracle"`, "the drivers of this hub are", "postgresql")
}

func nameTakenTwice(t *testing.T, f *Fleet) {
	out, err := f.Tripodctl(t.Context(), "join-token", "south-1")
	if err == nil {
		t.Fatalf("a token for the name of another cluster was made: %s", out)
	}
	says(t, err.Error(), "south-1", "is taken by a cluster that has joined", "choose another name", "--rejoin")
	// A person with the right to make Secrets can make the token by hand. The
	// hub refuses the second agent all the same.
	token := handmadeToken(t, f, "south-1")
	refusal := joinAgain(t, f, "south-1", token.String(), "has joined already")
	says(t, refusal, `cluster "south-1" has joined already`, "give it another name", "tripodctl join-token south-1 --rejoin")
}

// handmadeToken is a good token that tripodctl did not make.
func handmadeToken(t *testing.T, f *Fleet, cluster string) jointoken.Token {
	t.Helper()
	config, err := f.Lab.RESTConfig("hub")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(config.CAData)
	if block == nil {
		t.Fatal("the hub's kubeconfig holds no CA")
	}
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jointoken.New(cluster, ca)
	if err != nil {
		t.Fatal(err)
	}
	api, err := f.API()
	if err != nil {
		t.Fatal(err)
	}
	secret := token.NewSecret(time.Now().Add(time.Hour), false)
	if err := api.Create(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { drop(t, f, "hub", "-n", jointoken.Namespace, "secret/"+secret.Name) })
	return token
}

func badTokens(t *testing.T, f *Fleet) {
	const fresh = "bad-input-1"
	t.Cleanup(func() { drop(t, f, "hub", "cluster/"+fresh) })
	used, err := base64.StdEncoding.DecodeString(must(t)(f.Kubectl(t.Context(), nil, "--context", "direct-south-1", "-n", "tripod-system",
		"get", "secret", "tripod-agent-join", "-o", "jsonpath={.data.token}")))
	if err != nil {
		t.Fatal(err)
	}
	stale := must(t)(f.Tripodctl(t.Context(), "join-token", fresh, "--region", "south", "--center", "south-1", "--ttl", "1ms"))
	for name, test := range map[string]struct {
		cluster, token string
		refusal        []string
	}{
		"stale": {fresh, stale, []string{
			`does not accept the join token of cluster "bad-input-1"`, "expired", "tripodctl join-token bad-input-1"}},
		"used before": {"south-1", string(used), []string{"south-1", "used", "tripodctl join-token south-1"}},
		"malformed": {"south-1", "south-1.cut-off", []string{
			"join token is malformed", "it has 2 parts, wants 4", "tripodctl join-token south-1"}},
		"another cluster's": {fresh, string(used), []string{
			`join token is for cluster "south-1", this is "bad-input-1"`, "tripodctl join-token bad-input-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			says(t, joinAgain(t, f, test.cluster, test.token, test.refusal[0]), test.refusal...)
		})
	}
}

// joinAgain starts an agent in south-1, in a namespace where there is no
// identity, and returns the line in which it says why it cannot join.
func joinAgain(t *testing.T, f *Fleet, cluster, token, want string) string {
	t.Helper()
	namespace := fmt.Sprintf("%s-%d", guest, time.Now().UnixNano())
	t.Cleanup(func() { drop(t, f, "direct-south-1", "namespace/"+namespace) })
	must(t)(f.Kubectl(t.Context(), nil, "--context", "direct-south-1", "create", "namespace", namespace))
	folder := t.TempDir()
	kubeconfig := must(t)(f.Kubectl(t.Context(), nil, "--context", "direct-south-1", "config", "view", "--minify", "--raw"))
	for name, text := range map[string]string{"token": token, "kubeconfig": kubeconfig} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var hosts []string
	for _, c := range f.Lab.Centers() {
		hosts = append(hosts, c.Address.String())
	}
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	lines, end := f.start(ctx, t, nil, "tripod-agent", "--cluster", cluster, "--hub", strings.Join(hosts, ","),
		"--join-token-file", filepath.Join(folder, "token"), "--kubeconfig", filepath.Join(folder, "kubeconfig"),
		"--namespace", namespace, "--replica", "second", "--listen-guard", "127.0.0.1:0", "--listen-health", "")
	defer end()
	var seen []string
	for lines.Scan() {
		// slog's text quotes quotes.
		line := strings.ReplaceAll(lines.Text(), `\"`, `"`)
		if strings.Contains(line, want) {
			return line
		}
		if strings.Contains(line, "the agent has its identity") {
			t.Fatalf("the agent joined as %s", cluster)
		}
		seen = append(seen, line)
	}
	t.Fatalf("the agent never said %q, but\n%s", want, strings.Join(seen, "\n"))
	return ""
}

func memberWithoutToken(t *testing.T, f *Fleet) {
	stranger := strangeMember(t, f)
	if err := os.WriteFile(stranger.token, []byte(strings.Repeat("f", 64)), 0o600); err != nil {
		t.Fatal(err)
	}
	said := stranger.run(t, f, stranger.members(f), false, "refused")
	says(t, said, "hub-north-1", `the hub token of member "hub-south-1" is not the one of member`, "give every member the same token file")
	healthyHub(t, f)
}

// memberOfAnotherHub starts a member whose data folder was made for a hub of its
// own, under the name of a member of this one.
func memberOfAnotherHub(t *testing.T, f *Fleet) {
	stranger := strangeMember(t, f)
	alone := stranger.members(f)[2:]
	stranger.run(t, f, alone, true, "hub member is ready")
	said := stranger.run(t, f, stranger.members(f), false, "that its peers do not have")
	says(t, said, `member "hub-south-1" has a CA that its peers do not have`, "hub-north-1", "hub-north-2", "move the directory away")
	healthyHub(t, f)
}

// stranger is a hub member on the host's loopback, outside of every center.
type stranger struct{ folder, token string }

func strangeMember(t *testing.T, f *Fleet) stranger {
	t.Helper()
	s := stranger{folder: t.TempDir()}
	s.token = filepath.Join(s.folder, "hub-token")
	token, err := os.ReadFile(filepath.Join(f.Lab.Folder(""), "hub-token"))
	if err == nil {
		err = os.WriteFile(s.token, token, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

type strangeEntry struct {
	Name    string `json:"name"`
	Region  string `json:"region"`
	Center  string `json:"center"`
	Address string `json:"address"`
}

// members are the hub's, the last of them at the stranger's address.
func (s stranger) members(f *Fleet) []strangeEntry {
	var entries []strangeEntry
	for _, c := range f.Lab.Centers() {
		entries = append(entries, strangeEntry{Name: c.HubMember(), Region: c.Region, Center: c.Name, Address: c.Address.String()})
	}
	entries[len(entries)-1].Address = "127.0.0.77"
	return entries
}

// run runs the stranger until it says what is wanted, and returns that line.
func (s stranger) run(t *testing.T, f *Fleet, members []strangeEntry, bootstrap bool, want string) string {
	t.Helper()
	text, err := yaml.Marshal(map[string]any{
		"name": members[len(members)-1].Name, "dataDir": filepath.Join(s.folder, "data"), "bootstrap": bootstrap,
		"hubTokenFile": s.token, "members": members,
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.folder, "config.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	lines, end := f.start(ctx, t, nil, "tripod-hub", "--config", path)
	defer end()
	var seen []string
	for lines.Scan() {
		line := strings.ReplaceAll(lines.Text(), `\"`, `"`)
		if strings.Contains(line, want) {
			return line
		}
		seen = append(seen, line)
	}
	t.Fatalf("the member never said %q, but\n%s", want, strings.Join(seen, "\n"))
	return ""
}

// healthyHub: the hub's own members lead, follow and answer.
func healthyHub(t *testing.T, f *Fleet) {
	t.Helper()
	var members []string
	for _, c := range f.Lab.Centers() {
		members = append(members, c.HubMember())
	}
	if _, err := f.Leader(t.Context()); err != nil {
		t.Errorf("after the stranger: %v", err)
	}
	status := must(t)(f.Tripodctl(t.Context(), "hub", "status"))
	says(t, status, members...)
	if strings.Contains(status, "127.0.0.77") {
		t.Errorf("the stranger is a member:\n%s", status)
	}
}
