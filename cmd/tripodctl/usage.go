package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// sayUsage completes errors about arguments and flags with how the command is
// called, and makes an unknown word after a group of commands an error.
func sayUsage(c *cobra.Command) {
	for _, sub := range c.Commands() {
		sayUsage(sub)
	}
	if c.HasSubCommands() && !c.Runnable() {
		if c.HasParent() {
			c.Args = cobra.ArbitraryArgs
			c.RunE = func(cmd *cobra.Command, args []string) error {
				if len(args) == 0 {
					return cmd.Help()
				}
				return fmt.Errorf("unknown command %q: `%s --help` lists them", args[0], cmd.CommandPath())
			}
		}
		return
	}
	check := c.Args
	c.Args = func(cmd *cobra.Command, args []string) error {
		if check == nil {
			return nil
		}
		if err := check(cmd, args); err != nil {
			return fmt.Errorf("%d arguments do not fit: use `%s`", len(args), cmd.UseLine())
		}
		return nil
	}
}
