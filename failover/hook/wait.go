package hook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/cel-go/cel"
	"k8s.io/apimachinery/pkg/runtime"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/hub/api/condition"
)

// wait evaluates the condition until it is true. One that cannot be evaluated yet,
// because a field is not there, is not true; its last error is told in the end.
func (r *Runner) wait(ctx context.Context, c failover.HookCall) (string, error) {
	program, err := condition.Compile(c.Hook.Wait.Condition)
	if err != nil {
		return "", err
	}
	if r.cfg.View == nil {
		return "", errors.New("this hub shows conditions no view")
	}
	run, err := runtime.DefaultUnstructuredConverter.ToUnstructured(c.Run)
	if err != nil {
		return "", fmt.Errorf("show the run to the condition: %w", err)
	}
	ticker := time.NewTicker(r.cfg.Pace)
	defer ticker.Stop()
	for {
		met, err := r.evaluate(ctx, program, run)
		if met {
			return "the condition is true", nil
		}
		select {
		case <-ctx.Done():
			return "", errors.Join(fmt.Errorf("condition %q is not true", c.Hook.Wait.Condition), err)
		case <-ticker.C:
		}
	}
}

func (r *Runner) evaluate(ctx context.Context, program cel.Program, run map[string]any) (bool, error) {
	view, err := r.cfg.View(ctx)
	if err != nil {
		return false, fmt.Errorf("read the view: %w", err)
	}
	input := map[string]any{condition.Run: run}
	for _, name := range condition.Lists {
		input[name] = []any{}
		if list, ok := view[name]; ok {
			input[name] = list
		}
	}
	value, _, err := program.ContextEval(ctx, input)
	if err != nil {
		return false, fmt.Errorf("evaluate: %w", err)
	}
	met, ok := value.Value().(bool)
	if !ok {
		return false, fmt.Errorf("the condition is a %s, want a bool", value.Type().TypeName())
	}
	return met, nil
}
