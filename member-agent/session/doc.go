// Package session is the agent's end of its sessions: one stream to every hub
// member, dialled for ever; a heartbeat on all of them each tick; and of all the
// answers the one lease that they amount to.
package session
