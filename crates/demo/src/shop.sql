drop schema if exists onrecord_demo cascade;
create schema onrecord_demo;
create table onrecord_demo.customers (id int primary key, name text not null, email text not null);
create table onrecord_demo.products (id int primary key, name text not null, price_cents int not null);
create table onrecord_demo.orders (
  id int generated always as identity primary key,
  customer_id int not null references onrecord_demo.customers,
  product_id int not null references onrecord_demo.products,
  quantity int not null default 1,
  status text not null default 'open',
  at timestamptz not null default now()
);
create table onrecord_demo.stock (product_id int not null references onrecord_demo.products, quantity int not null);
insert into onrecord_demo.customers
  select n, 'Customer ' || n, 'customer' || n || '@example.com' from generate_series(1, 200) n;
insert into onrecord_demo.products
  select n, 'Product ' || n, 100 + (n * 37) % 900 from generate_series(1, 20) n;
insert into onrecord_demo.orders (customer_id, product_id, quantity, status)
  select 1 + n % 200, 1 + n % 20, 1 + n % 3, case when n % 5 = 0 then 'open' else 'paid' end
  from generate_series(1, 1000) n;
