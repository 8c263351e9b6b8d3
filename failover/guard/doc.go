// Package guard is the logic of tripod-guard, PID 1 of a database's container:
// it runs the database as its child and can always stop it (safety.md section
// 4). Core decides, Guard acts; the database itself is behind Engine.
package guard
