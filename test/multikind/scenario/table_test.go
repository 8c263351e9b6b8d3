package scenario

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/test/multikind/validate"
)

const (
	folder = "../../.."
	page   = folder + "/docs/scenarios.md"
)

// TestTheCatalogueIsTheSuite: what the documents name exists, and every test of the
// lab is named there, in the slice of `make test` or not.
func TestTheCatalogueIsTheSuite(t *testing.T) {
	written := labTests(t)
	named := map[string]bool{}
	for _, s := range Catalogue() {
		if (len(s.Proofs) == 0) == (s.Missing == "") {
			t.Errorf("%s %q has %d proofs and says of what is missing: %q", s.ID, s.Disaster, len(s.Proofs), s.Missing)
		}
		for _, p := range s.Proofs {
			if named[p.Test] {
				t.Errorf("%s is in the catalogue twice", p.Test)
			}
			named[p.Test] = true
			if !written[p.Test] {
				t.Errorf("the catalogue names %s, which no file has", p.Test)
			}
			if s.ID != "" && !strings.HasPrefix(p.Test, "Test"+s.ID) {
				t.Errorf("%s plays %s: its name begins with Test%s", p.Test, s.ID, s.ID)
			}
		}
	}
	for test := range written {
		if !named[test] {
			t.Errorf("%s plays in the lab and is not in the catalogue", test)
		}
	}
}

// labTests are the tests of this folder that play something in a lab: they call
// record, by themselves or by what they call.
func labTests(t *testing.T) map[string]bool {
	t.Helper()
	calls := callsOfTests(t)
	uses := map[string]bool{"record": true}
	for changed := true; changed; {
		changed = false
		for name, callees := range calls {
			if !uses[name] && slices.ContainsFunc(callees, func(c string) bool { return uses[c] }) {
				uses[name], changed = true, true
			}
		}
	}
	tests := map[string]bool{}
	for name := range uses {
		if strings.HasPrefix(name, "Test") {
			tests[name] = true
		}
	}
	return tests
}

// callsOfTests lists which functions each function of the test files calls.
func callsOfTests(t *testing.T) map[string][]string {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string][]string{}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			function, ok := d.(*ast.FuncDecl)
			if !ok || function.Recv != nil {
				continue
			}
			name := function.Name.Name
			ast.Inspect(function.Body, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok {
					if callee, ok := call.Fun.(*ast.Ident); ok {
						calls[name] = append(calls[name], callee.Name)
					}
				}
				return true
			})
		}
	}
	return calls
}

// The page in the tree is what the catalogue says, whatever its figures.
func TestThePageIsOfThisCatalogue(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	again, err := document(string(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	if again != string(text) {
		t.Errorf("%s is stale: `make scenarios ONLY=TheCatalogueIsTheSuite` writes it", filepath.Base(page))
	}
}

func TestFiguresOfTestsThatWereNotPlayedStay(t *testing.T) {
	outcome := func(test string, rto time.Duration, lost int) Outcome {
		o := Outcome{Test: test, Passed: lost == 0, Duration: 31.4}
		o.measure(rto, &validate.Report{Lost: lost})
		return o
	}
	empty := "# Head\n" + tableBegin + tableEnd + "\ntail\n"
	first, err := document(empty, []Outcome{outcome("TestS1CenterLosesPower", 5100*time.Millisecond, 0), outcome("TestS4OneWayPartition", 0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	second, err := document(first, []Outcome{outcome("TestS1CenterLosesPower", 6*time.Second, 0), outcome("TestS1CenterLosesPower", 7*time.Second, 2)})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"# Head\n", "\ntail\n",
		"| `TestS1CenterLosesPower` | yes | 1 of 2 passed, RTO 7.0 s, 2 lost, 0 double, 0 by two epochs, 31 s long |",
		"| `TestS4OneWayPartition` | yes | 1 of 1 passed, 0 lost, 0 double, 0 by two epochs, 31 s long |",
		"| `TestS10AllHubMembersDie` | yes | " + neverPlayed + " |",
	} {
		if !strings.Contains(second, want) {
			t.Errorf("the page lacks %q:\n%s", want, second)
		}
	}
	if _, err := document("# A page without marks", nil); err == nil {
		t.Error("a page without marks was written over")
	}
}

func TestTheRecorderTellsEachRoundAtOnce(t *testing.T) {
	r := Recorder{Folder: filepath.Join(t.TempDir(), "_scenarios")}
	for range 2 {
		o := Outcome{Test: "TestS1CenterLosesPower", Round: r.Round("TestS1CenterLosesPower"), Passed: true}
		o.measure(5*time.Second, &validate.Report{})
		if err := r.Add(o); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(r.Folder, "result.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got []map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[1]["round"] != 2.0 {
		t.Fatalf("the file has %v", got)
	}
	for field, want := range map[string]any{"scenario": "S1", "passed": true, "rto": 5.0, "lost": 0.0, "duplicated": 0.0, "two-epochs": 0.0, "duration": 0.0} {
		if got[0][field] != want {
			t.Errorf("%s is %v, want %v", field, got[0][field], want)
		}
	}
}
