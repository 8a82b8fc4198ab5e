-- A template: the condition that a row has the identity of one at some places (Place).
{{template "identity.sql"}} IN (SELECT {{template "identity.sql"}} FROM usage_tracking WHERE {{.Place}})
