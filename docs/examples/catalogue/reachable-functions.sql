-- The functions beyond PostgreSQL's own that whoever runs this may execute: run it as the gateway's database user.
select p.oid::regprocedure
from pg_proc p
where p.oid >= 16384 and has_function_privilege(p.oid, 'execute')
  and p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype)
order by 1;
