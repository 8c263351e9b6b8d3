// Package condition is the language of a hook's condition: CEL over the objects of the
// hub. The API server refuses what does not compile, preflight tells of what was
// written before that, and the engine evaluates.
package condition

import (
	"fmt"

	"github.com/google/cel-go/cel"
)

// costLimit bounds one evaluation, in CEL's units: some thousand objects with a
// condition over each.
const costLimit = 10_000_000

// Run is the variable that holds the run whose hook it is, as the API shows it.
const Run = "run"

// Lists are the variables that hold the hub's objects, as the API shows them.
var Lists = []string{"clusters", "applications", "datasets", "services"}

// Compile reads a condition; its value must be a truth value.
func Compile(text string) (cel.Program, error) {
	options := []cel.EnvOption{cel.OptionalTypes(), cel.Variable(Run, cel.DynType)}
	for _, name := range Lists {
		options = append(options, cel.Variable(name, cel.ListType(cel.DynType)))
	}
	env, err := cel.NewEnv(options...)
	if err != nil {
		return nil, fmt.Errorf("make the environment of conditions: %w", err)
	}
	ast, issues := env.Compile(text)
	if issues.Err() != nil {
		return nil, fmt.Errorf("condition is not valid: %w", issues.Err())
	}
	if out := ast.OutputType(); out != cel.BoolType && out != cel.DynType {
		return nil, fmt.Errorf("condition is a %s, want a bool", out)
	}
	program, err := env.Program(ast, cel.CostLimit(costLimit), cel.InterruptCheckFrequency(100))
	if err != nil {
		return nil, fmt.Errorf("prepare the condition: %w", err)
	}
	return program, nil
}
